"""What is written survives a kill, and the budget is never exceeded by one call."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from apps.common.errors import InputError, StorageError
from apps.eval.calls import journal
from apps.eval.calls.budget import BudgetExhaustedError
from apps.eval.calls.hold import hold
from apps.eval.calls.journal import Journal
from tests.eval.one_run import bound, response


@asynccontextmanager
async def opened(directory: Path, max_usd: float | None = None) -> AsyncIterator[Journal]:
    made = Journal(str(directory), max_usd)
    await made.begin()
    try:
        yield made
    finally:
        made.close()


async def spent(directory: Path) -> float:
    async with opened(directory) as made:
        return (await made.state())[1]


async def test_a_response_is_stored_under_its_key_and_charged(tmp_path: Path) -> None:
    async with opened(tmp_path) as made:
        attempt = await made.open_call("t", bound("k1", 0.5))
        await made.store(response("k1", 0.2), attempt)
    assert [record["key"] for record in journal.read_raw(str(tmp_path))] == ["k1"]
    assert await spent(tmp_path) == pytest.approx(0.2)


async def test_a_call_in_flight_at_a_kill_is_charged_in_full(tmp_path: Path) -> None:
    async with opened(tmp_path) as made:
        await made.open_call("t", bound("k1", 0.5))
    assert await spent(tmp_path) == pytest.approx(0.5)
    async with opened(tmp_path) as made:
        attempt = await made.open_call("t", bound("k1", 0.5))
        assert attempt == 1
        await made.store(response("k1", 0.2), attempt)
    assert await spent(tmp_path) == pytest.approx(0.7)


async def test_an_unbilled_failure_gives_its_reservation_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as made:
        await made.fail_call("k1", await made.open_call("t", bound("k1", 0.5)), may_be_billed=False)
        await made.fail_call("k2", await made.open_call("t", bound("k2", 0.3)), may_be_billed=True)
        assert (await made.state())[1] == pytest.approx(0.3)
    assert await spent(tmp_path) == pytest.approx(0.3)


async def test_reservations_never_exceed_the_budget(tmp_path: Path) -> None:
    """40 callers of up to $0.10 each share $1: none may be in flight beyond it."""
    async with opened(tmp_path, max_usd=1.0) as made:
        reserved, most, refused = 0.0, 0.0, 0

        async def call(number: int) -> None:
            nonlocal reserved, most, refused
            try:
                attempt = await made.open_call("t", bound(f"k{number}", 0.10))
            except BudgetExhaustedError:
                refused += 1
                return
            reserved += 0.10
            most = max(most, (await made.state())[1] + reserved)
            await asyncio.sleep(0.001)
            reserved -= 0.10
            await made.store(response(f"k{number}", 0.06), attempt)

        await asyncio.gather(*(call(number) for number in range(40)))
        stored, usd = await made.state()
    assert most <= 1.0 + 1e-9 and usd <= 1.0
    assert stored >= 15, "reservations that were not used up are lent again"
    assert stored + refused == 40


async def test_a_dead_tasks_reservations_are_charged_not_held(tmp_path: Path) -> None:
    async with opened(tmp_path, max_usd=1.0) as made:
        await made.open_call("dead", bound("k1", 0.9))
        await made.forget("dead")
        with pytest.raises(BudgetExhaustedError, match="raise --max-usd"):
            await made.open_call("t", bound("k2", 0.2))


async def test_a_torn_line_is_as_if_never_written(tmp_path: Path) -> None:
    async with opened(tmp_path) as made:
        await made.store(response("k1", 0.1), await made.open_call("t", bound("k1", 0.1)))
    with open(journal.raw_path(str(tmp_path)), "ab") as handle:
        handle.write(b'{"key": "k2", "us')
    async with opened(tmp_path) as made:
        await made.store(response("k3", 0.1), await made.open_call("t", bound("k3", 0.1)))
    assert [record["key"] for record in journal.read_raw(str(tmp_path))] == ["k1", "k3"]


@contextmanager
def unwritable(path: str) -> Iterator[None]:
    """A folder stands where the file is wanted, and nothing can be added to it."""
    file, kept = Path(path), Path(f"{path}.kept")
    if file.exists():
        file.rename(kept)
    file.mkdir()
    yield
    file.rmdir()
    if kept.exists():
        kept.rename(file)


async def test_who_writes_to_one_file_hears_nothing_of_the_others_trouble(tmp_path: Path) -> None:
    """And what could not be written down was not sent: its room is there again at once."""
    async with opened(tmp_path, max_usd=1.0) as made:
        attempt = await made.open_call("t", bound("k1", 0.5))
        with unwritable(journal.intents_path(str(tmp_path))):
            outcomes = await asyncio.gather(
                made.store(response("k1", 0.1), attempt),
                made.open_call("t", bound("k2", 0.4)),
                return_exceptions=True,
            )
        assert outcomes[0] is None and isinstance(outcomes[1], StorageError)
        assert (await made.state()) == (1, pytest.approx(0.1))
        await made.open_call("t", bound("k3", 0.9))
    assert [record["key"] for record in journal.read_raw(str(tmp_path))] == ["k1"]


async def test_a_response_that_cannot_be_stored_is_charged_and_holds_up_nobody(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, max_usd=1.0) as made:
        attempt = await made.open_call("t", bound("k1", 0.5))
        waiting = asyncio.create_task(made.open_call("t", bound("k2", 0.8)))
        with unwritable(journal.raw_path(str(tmp_path))), pytest.raises(StorageError):
            await made.store(response("k1", 0.2), attempt)
        assert await waiting == 0
        assert (await made.state()) == (0, pytest.approx(0.2))


async def test_a_caller_that_gives_up_before_it_may_send_leaves_its_room(tmp_path: Path) -> None:
    async with opened(tmp_path, max_usd=1.0) as made:
        given_up = asyncio.create_task(made.open_call("t", bound("k1", 0.9)))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])
        assert given_up.cancelled() and await made.open_call("t", bound("k2", 0.9)) == 0


@pytest.mark.parametrize(
    ("opened_attempts", "released", "num_responses", "unknown"),
    [
        ([0], [], 0, [0]),
        ([0], [], 1, []),
        ([0, 1], [], 1, [0]),  # the first was in flight at a kill
        ([0, 1], [0], 1, []),
        ([0, 1], [1], 1, []),  # the run before heard late; this one's endpoint failed
        ([0, 1], [], 2, []),  # both heard
        ([0, 1, 2], [], 2, [0]),
        ([], [], 1, []),  # imported
    ],
)
def test_each_response_answers_one_attempt(
    opened_attempts: list[int], released: list[int], num_responses: int, unknown: list[int]
) -> None:
    intents = [{"key": "k", "attempt": n, "usd": 0.5} for n in opened_attempts]
    intents += [{"key": "k", "attempt": n, "released": True} for n in released]
    responses = [{"key": "k"}] * num_responses
    told = journal.unknown_attempts(intents, responses)
    assert told == {("k", n): 0.5 for n in unknown}


def test_two_runs_cannot_write_one_folder(tmp_path: Path) -> None:
    held = hold(str(tmp_path))
    with pytest.raises(InputError, match="another run is judging"):
        hold(str(tmp_path), patience_s=0.1)
    held.release()
    hold(str(tmp_path), patience_s=0.1).release()
