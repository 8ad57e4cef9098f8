"""What a gateway keeps of the workers that announce themselves."""

import dataclasses

from apps.serve.config import ModelConfig, Prices
from apps.serve.model.pool import PoolEntry
from apps.serve.model.workers import Announcement, Workers


async def test_a_worker_that_comes_back_with_another_key_or_price_is_another() -> None:
    config = ModelConfig(name="pool", engine="pool", options={"joinable": True})
    pool = PoolEntry(config=config, members={})
    workers = Workers(lambda: {"pool": pool})
    said = Announcement(
        pool="pool", worker="w", owner="lab", base_url="http://127.0.0.1:9/v1", model="m"
    )
    await workers.heard(said)
    first = pool.members["w"]
    await workers.heard(dataclasses.replace(said, weight=2.0))
    assert pool.members["w"] is first and first.weight == 2.0
    for changed in ({"api_key": "k"}, {"prices": Prices(input_usd_per_million_tokens=1)}):
        before, said = pool.members["w"], dataclasses.replace(said, **changed)
        await workers.heard(said)
        assert pool.members["w"] is not before and before.gone.is_set()
    assert pool.members["w"].config.prices.input_usd_per_million_tokens == 1
    await workers.heard(dataclasses.replace(said, is_gone=True))
