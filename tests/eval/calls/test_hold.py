"""The journal in a bucket: nothing is lost by a kill, and no call is sent twice unseen."""

import asyncio
import uuid
from typing import Any

import pytest

from apps.common.errors import InputError
from apps.common.files import storage
from apps.eval.calls import journal
from apps.eval.calls.hold import hold
from apps.eval.calls.journal import Journal
from tests.eval.one_run import bound, response


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"journal-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=name)
    return f"s3://{name}/eval"


async def begun(directory: str, max_usd: float | None = None) -> Journal:
    made = Journal(directory, max_usd)
    await made.begin()
    return made


async def test_what_was_stored_before_a_kill_is_there_and_charged(bucket: str) -> None:
    first = await begun(bucket)
    attempt = await first.open_call("t", bound("k1", 0.5))
    await first.store(response("k1", 0.2), attempt)
    await first.open_call("t", bound("k2", 0.3))  # and killed: nothing is closed
    second = await begun(bucket)
    assert [record["key"] for record in journal.read_raw(bucket)] == ["k1"]
    assert (await second.state())[1] == pytest.approx(0.5)
    assert await second.open_call("t", bound("k2", 0.3)) == 1


async def test_an_unbilled_failure_gives_its_reservation_back(bucket: str) -> None:
    first = await begun(bucket)
    await first.fail_call("k1", await first.open_call("t", bound("k1", 0.5)), may_be_billed=False)
    assert (await (await begun(bucket)).state())[1] == 0


async def test_callers_that_arrive_together_share_an_object(bucket: str) -> None:
    made = await begun(bucket)
    await asyncio.gather(*(made.open_call("t", bound(f"k{n}", 0.01)) for n in range(50)))
    assert len(journal.read_intents(bucket)) == 50
    assert len(storage.list_dir(f"{journal.intents_path(bucket)}.parts")) < 25


async def test_a_run_that_was_taken_over_sends_nothing_more(bucket: str) -> None:
    """What it was told in time is kept, and its last intent, which it did not send, is no cost."""
    first = await begun(bucket)
    attempt = await first.open_call("t", bound("k1", 0.5))
    second = await begun(bucket)
    stored, refused = await asyncio.gather(
        first.store(response("k1", 0.2), attempt),
        first.open_call("t", bound("k2", 0.5)),
        return_exceptions=True,
    )
    assert stored is None and isinstance(refused, InputError)
    assert "Another run has begun judging" in str(refused)
    assert await second.open_call("t", bound("k3", 0.3)) == 0
    assert {record["key"] for record in journal.read_raw(bucket)} == {"k1"}
    assert (await (await begun(bucket)).state())[1] == pytest.approx(0.2 + 0.3)


async def test_a_call_that_both_runs_made_is_charged_twice_and_no_more(bucket: str) -> None:
    first = await begun(bucket)
    early = await first.open_call("t", bound("k1", 0.5))
    second = await begun(bucket)
    late = await second.open_call("t", bound("k1", 0.5))
    for run, attempt in ((second, late), (first, early)):
        await run.store(response("k1", 0.2), attempt)
    assert (await (await begun(bucket)).state())[1] == pytest.approx(0.4)


@pytest.mark.parametrize("seed", range(5))
async def test_of_runs_that_begin_together_one_goes_on(seed: int, bucket: str) -> None:
    runs = await asyncio.gather(*(begun(bucket) for _ in range(4)))

    async def sends(run: Journal) -> bool:
        try:
            await run.open_call("t", bound(f"k{seed}", 0.1))
        except InputError:
            return False
        return True

    assert sum(await asyncio.gather(*(sends(run) for run in runs))) == 1


def test_a_clock_that_is_behind_takes_the_folder_all_the_same(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = hold(bucket)
    with monkeypatch.context() as patch:
        patch.setattr("time.time_ns", lambda: 1)
        behind = hold(bucket)
    behind.check()
    with pytest.raises(InputError, match="this one stops"):
        ahead.check()
