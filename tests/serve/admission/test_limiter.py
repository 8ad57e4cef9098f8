import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from apps.common.command.runtime import free_port
from apps.serve.admission import limiter
from apps.serve.admission.limiter import Limiter
from apps.serve.config import ApiKey


def key(**limits: Any) -> ApiKey:
    return ApiKey(name="ali", sha256="0" * 64, **limits)


@contextlib.contextmanager
def redis_at(port: int, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed; apt-get install redis-server")
    pytest.importorskip("redis", reason="the redis package is not installed")
    argv = ["redis-server", "--port", str(port), "--dir", str(tmp_path), "--save", ""]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as server:
        import redis

        with redis.Redis(port=port) as client:
            for _ in range(200):
                with contextlib.suppress(redis.ConnectionError):
                    client.ping()
                    break
                time.sleep(0.05)
        try:
            yield server
        finally:
            server.kill()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    with redis_at(port, tmp_path):
        yield f"redis://127.0.0.1:{port}"


def test_requests_tokens_dollars_and_streams_are_limited_each_by_name() -> None:
    for limits, name in (
        ({"requests_per_minute": 1}, "requests_per_minute"),
        ({"tokens_per_minute": 10}, "tokens_per_minute"),
        ({"concurrent_streams": 1}, "concurrent_streams"),
    ):
        one = Limiter()
        assert one.admit(key(**limits), 10, "g", 0) is None
        refusal = one.admit(key(**limits), 10, "g", 1)
        assert refusal is not None and refusal.limit == name
        assert 1 <= refusal.retry_after_s <= 120


def test_what_was_spent_above_the_limit_shuts_the_day() -> None:
    one, cheap = Limiter(), key(usd_per_day=0.5)
    assert one.admit(cheap, 10, "g", 0) is None
    one.charge(cheap, 0, 0.7)
    refusal = one.admit(cheap, 10, "g", 0)
    assert refusal is not None and "may spend $0.5 a day" in refusal.message


@pytest.mark.parametrize(("usd", "told"), [(5e-5, "$0.00005"), (20.0, "$20"), (1.25, "$1.25")])
def test_dollars_are_told_as_people_write_them(usd: float, told: str) -> None:
    one = Limiter()
    one.charge(key(usd_per_day=usd), 0, 2 * usd)
    refusal = one.admit(key(usd_per_day=usd), 1, "g", 0)
    assert refusal is not None and refusal.message.endswith(f"may spend {told} a day")


def test_the_smallest_costs_add_up() -> None:
    one, cheap = Limiter(), key(usd_per_day=1e-6)
    for _ in range(10):
        assert one.admit(cheap, 10, "g", 0) is None
        one.charge(cheap, 0, 1e-7)
    assert one.admit(cheap, 10, "g", 0) is not None
    one = Limiter()
    for _ in range(1000):
        one.charge(cheap, 0, 1e-15)  # below the unit: one of these
    assert one.admit(cheap, 10, "g", 0) is not None


@pytest.mark.parametrize("usd", [1e300, float("inf")])
def test_the_greatest_costs_and_limits_are_counted_too(usd: float) -> None:
    one = Limiter()
    one.charge(key(usd_per_day=5.0), 0, usd)
    assert one.admit(key(usd_per_day=5.0), 1, "g", 0) is not None
    assert one.admit(key(usd_per_day=1e300), 1, "g", 0) is None


@pytest.mark.parametrize(
    ("name", "changed"),
    [("usd_per_day", 9.0), ("tokens_per_minute", 9), ("requests_per_minute", 9)],
)
def test_a_limit_that_is_changed_holds_for_what_was_used_before(name: str, changed: float) -> None:
    one, before = Limiter(), key(**{name: 10})
    for _ in range(10):
        assert one.admit(before, 1, "g", 0) is None
        one.charge(before, 0, 1.0)
    assert one.admit(before, 1, "g", 0) is not None
    assert one.admit(key(**{name: changed}), 1, "g", 0) is not None
    assert one.admit(key(**{name: 12}), 1, "g", 0) is None


@pytest.mark.parametrize("first_s", [0.0, 30.0, 59.0])
def test_no_60_s_have_more_requests_than_a_minute_may(monkeypatch, first_s: float) -> None:
    one, few, now = Limiter(), key(requests_per_minute=10), [6e8 + first_s]
    monkeypatch.setattr(limiter.time, "time", lambda: now[0])
    let_in: list[float] = []
    for _ in range(600):
        refusal = one.admit(few, 1, "g", 0)
        if refusal is None:
            let_in.append(now[0])
        else:
            assert refusal.retry_after_s == max(1.0, let_in[-10] + 60 - now[0])
        now[0] += 0.73
    assert len(let_in) > 40
    for begin_s in let_in:
        assert sum(begin_s <= at < begin_s + 60 for at in let_in) <= 10


def test_a_day_is_one_of_utc(monkeypatch) -> None:
    noon = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
    now = [noon]
    monkeypatch.setattr(limiter.time, "time", lambda: now[0])
    one, cheap = Limiter(), key(usd_per_day=1.0)
    one.charge(cheap, 0, 2.0)
    refusal = one.admit(cheap, 1, "g", 0)
    assert refusal is not None and refusal.retry_after_s == 12 * 3600
    now[0] = noon + 12 * 3600 - 60
    one.charge(cheap, 0, 2.0)
    refusal = one.admit(cheap, 1, "g", 0)
    assert refusal is not None and refusal.retry_after_s == 60
    now[0] = noon + 12 * 3600
    assert one.admit(cheap, 1, "g", 0) is None


def test_what_was_used_while_the_clock_was_wrong_shuts_nothing_afterwards(monkeypatch) -> None:
    noon = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
    now = [noon + 3600]
    monkeypatch.setattr(limiter.time, "time", lambda: now[0])
    one, few = Limiter(), key(tokens_per_minute=10, requests_per_minute=1)
    assert one.admit(few, 10, "g", 0) is None
    now[0] = noon  # the clock is set right
    assert one.admit(few, 10, "g", 0) is None
    refusal = one.admit(few, 10, "g", 0)
    assert refusal is not None and refusal.retry_after_s == 60
    now[0] = noon + 60
    assert one.admit(key(tokens_per_minute=10), 10, "g", 0) is None


def test_streams_of_other_gateways_count_until_these_are_gone(monkeypatch) -> None:
    one, two_at_a_time = Limiter(), key(concurrent_streams=2)
    one.renew("ali", "other", 2)
    assert one.admit(two_at_a_time, 1, "here", 0) is not None
    now_s = time.monotonic()
    monkeypatch.setattr(limiter.time, "monotonic", lambda: now_s + limiter.LEASE_S + 1)
    assert one.admit(two_at_a_time, 1, "here", 0) is None


def test_with_redis_a_limiter_that_starts_again_knows_what_was_used(redis: str) -> None:
    once = key(requests_per_minute=1, tokens_per_minute=100)
    assert Limiter(redis).admit(once, 10, "g", 0) is None
    assert Limiter(redis).admit(once, 10, "g", 0) is not None
    Limiter(redis).charge(key(usd_per_day=5.0), 0, float("inf"))
    assert Limiter(redis).admit(key(usd_per_day=6.0), 10, "g", 0) is not None


def test_what_was_used_while_redis_was_away_is_counted_when_it_is_back(tmp_path: Path) -> None:
    port, cheap = free_port(), key(usd_per_day=1.0, tokens_per_minute=10_000)
    with redis_at(port, tmp_path):
        one = Limiter(f"redis://127.0.0.1:{port}")
        one.charge(cheap, 10, 0.3)
    one.charge(cheap, 10, 0.4)
    one.charge(cheap, 10, 0.4)
    with pytest.raises(Exception, match="refused"):
        one.admit(cheap, 10, "g", 0)
    with redis_at(port, tmp_path):  # and has kept nothing
        assert one.admit(cheap, 10, "g", 0) is None
        Limiter(f"redis://127.0.0.1:{port}").charge(cheap, 0, 0.2)
        assert one.admit(cheap, 10, "g", 0) is not None
        one.charge(cheap, 0, 0.3)
        assert one.admit(cheap, 10, "g", 0) is not None


def test_requests_let_in_while_redis_was_away_are_of_the_last_minute_when_it_is_back(
    tmp_path: Path,
) -> None:
    port, few = free_port(), key(requests_per_minute=5)
    one = Limiter(f"redis://127.0.0.1:{port}")
    for _ in range(3):
        one.charge(few, 0, 0.0, requests=1)
    one.charge(few, 0, 0.0, requests=1)
    with redis_at(port, tmp_path):
        assert one.admit(few, 1, "g", 0) is None
        refusal = one.admit(few, 1, "g", 0)
        assert refusal is not None and refusal.limit == "requests_per_minute"
        one.charge(few, 0, 0.0, requests=50)  # more than there is room for
        assert not one._owed


def test_what_a_frozen_redis_did_not_confirm_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, cheap, said = free_port(), key(usd_per_day=2.2), []
    monkeypatch.setattr(limiter.logger, "warning", lambda text, *values: said.append(text % values))
    with redis_at(port, tmp_path) as server:
        one = Limiter(f"redis://127.0.0.1:{port}?socket_timeout=0.2")
        one.charge(cheap, 0, 0.1)
        server.send_signal(signal.SIGSTOP)
        for _ in range(3):
            one.charge(cheap, 0, 0.7)
        assert said and all("is counted when Redis is back" in warning for warning in said)
        server.send_signal(signal.SIGCONT)
        one.charge(cheap, 0, 0.1)
        assert one.admit(cheap, 1, "g", 0) is not None


def test_what_nobody_counted_in_its_minute_is_forgotten_while_redis_is_away(monkeypatch) -> None:
    one, now, counted = Limiter(), [1_000_000_000.0], list[int]()
    cheap = key(usd_per_day=1.0, tokens_per_minute=10_000)
    monkeypatch.setattr(limiter.time, "time", lambda: now[0])
    count = one._fixed.hit
    monkeypatch.setattr(one._fixed, "hit", lambda *_, **__: 1 / 0)
    for _ in range(60):
        one.charge(cheap, 10, 0.001)
        now[0] += 60
    assert len(one._owed) == 2  # of the day, and of the last minute

    def counting(*names, cost: int) -> bool:
        counted.append(cost)
        return count(*names, cost=cost)

    monkeypatch.setattr(one._fixed, "hit", counting)
    one.charge(cheap, 7, 0.0)
    assert counted == [60 * 1_000_000, 7] and not one._owed
