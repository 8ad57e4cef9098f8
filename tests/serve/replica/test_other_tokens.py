"""A gateway and a replica that have different files of one model, as while these are changed."""

import pytest

from apps.serve.answer import generation
from apps.serve.replica.replica import ModelReplica
from apps.serve.replica.wire import ReplicaName
from tests.serve.replica.gateway import gateway_of
from tests.serve.scripted import ScriptedEngine


@pytest.mark.parametrize(("tokenizer", "status"), [("", 200), ("the gateway's", 200), ("x", 503)])
async def test_a_replica_takes_no_ids_of_another_tokenizer(
    served, monkeypatch, tokenizer: str, status: int
) -> None:
    monkeypatch.setattr(generation, "MAX_REFUSALS", 2)
    engine = ScriptedEngine(lambda request: served.tokenizer.backend.encode("Hello").ids)
    digest = served.tokenizer.digest if tokenizer == "the gateway's" else tokenizer
    api, exchange = await gateway_of(ModelReplica(engine, ReplicaName("app", "1"), digest), served)
    answer = await api.chat()
    await exchange.close()
    assert (answer.status_code, len(engine.requests)) == (status, int(status == 200)), answer.text
    if status == 503:
        assert "tokenizer is being changed" in answer.json()["error"]["message"]
        assert answer.headers["retry-after"]
