"""The judge's calls beside FastChat's way of calling, under one scripted endpoint in one run.

    python benchmarks/judge.py [--out judge.json] [--num-calls 640] [--latency-s 2]

Five trials: constant latency; a rate limit; 20 % of faults (429, 500, timeout, garbage,
truncation); one judge served by three endpoints of different speed and limits, beside the ideal
split of the calls; five kill -9 of `python -m apps.eval judge`. FastChat's way is that of its
llm_judge: a thread pool, 16 tries, 10 s of sleep after any error, the first bracketed verdict
counts, one that cannot be read is dropped. Ends with a table and, beside it, the ratings' bar.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from apps.common import ratings  # noqa: E402
from apps.common.command.runtime import Session, ray_session  # noqa: E402
from apps.common.files import storage  # noqa: E402
from apps.eval.calls import journal  # noqa: E402
from apps.eval.calls.client import Endpoint  # noqa: E402
from apps.eval.calls.endpoints import openai_endpoint  # noqa: E402
from apps.eval.calls.rate_gate import Limits  # noqa: E402
from apps.eval.config import JudgeConfig  # noqa: E402
from apps.eval.folder import questions_uri  # noqa: E402
from apps.eval.judge import CALLS_PER_TASK  # noqa: E402
from apps.eval.judging.call import Call  # noqa: E402
from apps.eval.judging.job import Job, Persistence  # noqa: E402
from apps.eval.judging.plan import make_plan  # noqa: E402
from apps.eval.judging.prices import Price  # noqa: E402
from apps.eval.protocols.parsing import parse, parse_record  # noqa: E402
from apps.eval.records.answer import Answer, answers_uri  # noqa: E402
from apps.eval.records.question import Question, dump_questions  # noqa: E402
from benchmarks.results import save  # noqa: E402
from tests.eval.scripted_judge import respond  # noqa: E402

JUDGE = "judge-4"
CONCURRENCY = 64
RATE_PER_MIN = 1200.0
FASTCHAT_TRIES, FASTCHAT_SLEEP_S = 16, 10.0
PRICE = Price(usd_per_million_prompt_tokens=30.0, usd_per_million_completion_tokens=60.0)


@contextlib.contextmanager
def endpoint(**flags: float) -> Iterator[str]:
    """A scripted endpoint in a process of its own, as OPENAI_BASE_URL."""
    command = [sys.executable, os.path.join(ROOT, "tests", "eval", "scripted_judge.py")]
    for name, value in flags.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    before = {name: os.environ.get(name) for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            url = server.stdout.readline().strip()
            os.environ |= {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "scripted"}
            yield url
        finally:
            server.terminate()
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def stats(url: str) -> dict[str, int]:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/stats") as response:
        return json.load(response)


def folder(directory: str, num_calls: int) -> tuple[list[Question], dict[str, Any]]:
    """An evaluation folder that needs `num_calls` calls: two models, two orders."""
    questions = [
        Question(question_id=str(i), category="generic", turns=(f"Tell me about item {i}",))
        for i in range(num_calls // 2)
    ]
    texts = {"good": "I tell about item {0}. " * 20, "poor": "Item. " * 40}
    answers = {
        name: {
            q.question_id: Answer(
                question_id=q.question_id, turn_texts=(text.format(q.question_id),), model=name
            )
            for q in questions
        }
        for name, text in texts.items()
    }
    storage.write_atomic(questions_uri(directory), dump_questions(questions))
    for name, made in answers.items():
        lines = b"".join(item.to_json() for item in made.values())
        storage.write_atomic(answers_uri(directory, name), lines)
    return questions, answers


def planned(directory: str, num_calls: int) -> list[Call]:
    questions, answers = folder(directory, num_calls)
    config = JudgeConfig(dir=directory, judge=(JUDGE,), self_checks=0, canaries=False)
    return list(make_plan(config, questions, answers).calls)


def limits(rate_per_min: float) -> Limits:
    return Limits(requests_per_min=rate_per_min, tokens_per_min=1e9, concurrency=CONCURRENCY)


def cria(
    calls: list[Call], directory: str, endpoints: Sequence[Endpoint], limited: Sequence[Limits]
) -> dict[str, Any]:
    """One run over Ray, which is already up."""
    from apps.eval.judging import on_ray

    job = Job(
        calls=tuple(calls),
        directory=directory,
        endpoints={JUDGE: tuple(endpoints)},
        limits={JUDGE: tuple(limited)},
        prices={JUDGE: PRICE},
        persistence=Persistence(width=2 * CONCURRENCY),
        num_tasks=-(-sum(limit.concurrency for limit in limited) // CALLS_PER_TASK),
        max_usd=None,
    )
    started = time.monotonic()
    on_ray.run(job, lambda *_: None)
    wall_s = time.monotonic() - started
    return {"wall_s": wall_s, "judged": len(verdicts(directory)), "of": len(calls)}


def verdicts(directory: str) -> dict[str, str]:
    """The readable verdict of each judgment."""
    return {
        record["slot"]: parsed["verdict"]
        for record in journal.read_raw(directory)
        if (parsed := parse_record(record))["status"] == "ok"
    }


def fastchat(calls: list[Call]) -> dict[str, Any]:
    """The same calls as FastChat's gen_judgment makes them."""
    import openai

    client = openai.OpenAI(max_retries=0, timeout=600.0)

    def one(call: Call) -> bool:
        text = "$ERROR$"
        for _ in range(FASTCHAT_TRIES):
            try:
                reply = client.chat.completions.create(
                    model=call.judge, messages=list(call.messages), **call.parameters
                )
                text = reply.choices[0].message.content
                break
            except Exception:
                time.sleep(FASTCHAT_SLEEP_S)
        return bool(re.search(r"\[\[[ABC]\]\]", text))

    started = time.monotonic()
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        judged = sum(pool.map(one, calls))
    return {"wall_s": time.monotonic() - started, "judged": judged, "of": len(calls)}


def side_by_side(
    name: str, calls: list[Call], ideal_s: float, rate_per_min: float, **flags: float
) -> dict[str, Any]:
    """Both ways of calling, each on a fresh endpoint of the same script."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as directory, endpoint(**flags) as url:
        ours = cria(calls, directory, [openai_endpoint(JUDGE, 30.0)], [limits(rate_per_min)])
        ours["requests"] = stats(url)["requests"]
    with endpoint(**flags) as url:
        theirs = fastchat(calls)
        theirs["requests"] = stats(url)["requests"]
    print(f"  Cria {ours}, FastChat {theirs}", file=sys.stderr, flush=True)
    return {"trial": name, "ideal_s": ideal_s, "cria": ours, "fastchat": theirs}


@dataclass(frozen=True, kw_only=True)
class Served:
    """One of the endpoints that serve a judge."""

    latency_s: float
    concurrency: int
    requests_per_min: float = 1e6

    def answered_within(self, wall_s: float) -> int:
        """The most calls that can be back in this time: full waves, or one after another."""
        waves = self.concurrency * int(wall_s / self.latency_s + 1e-9)
        by_rate = max(0.0, wall_s - self.latency_s) * self.requests_per_min / 60.0
        return min(waves, int(by_rate) + 1) if wall_s >= self.latency_s else 0


def ideal_split_s(served: Sequence[Served], num_calls: int) -> float:
    """The least time in which these endpoints together can answer all calls."""
    wall_s = 0.0
    while sum(one.answered_within(wall_s) for one in served) < num_calls:
        wall_s += 0.01
    return wall_s


def three_endpoints(calls: list[Call], latency_s: float) -> dict[str, Any]:
    """One judge behind a fast, a rate-limited and a slow endpoint."""
    print("three endpoints ...", file=sys.stderr, flush=True)
    served = (
        Served(latency_s=latency_s / 2, concurrency=32),
        Served(latency_s=latency_s, concurrency=32, requests_per_min=600.0),
        Served(latency_s=1.5 * latency_s, concurrency=16),
    )
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        flags = [
            {"latency_s": one.latency_s, "requests_per_min": one.requests_per_min} for one in served
        ]
        urls = [stack.enter_context(endpoint(**one)) for one in flags]
        asked = [Endpoint(model=JUDGE, base_url=url, api_key=None, timeout_s=30.0) for url in urls]
        limited = [
            Limits(
                requests_per_min=one.requests_per_min,
                tokens_per_min=1e9,
                concurrency=one.concurrency,
            )
            for one in served
        ]
        ours = cria(calls, directory, asked, limited)
        ours["split"] = [stats(url)["served"] for url in urls]
        ours["requests"] = sum(stats(url)["requests"] for url in urls)
    print(f"  Cria {ours}", file=sys.stderr, flush=True)
    return {"trial": "three endpoints", "ideal_s": ideal_split_s(served, len(calls)), "cria": ours}


def killed_five_times(session: Session, num_calls: int, latency_s: float) -> dict[str, Any]:
    """`judge` on the command line, killed at five points and started again each time."""
    print("5 kill -9 ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as directory, endpoint(latency_s=latency_s) as url:
        calls = planned(directory, num_calls)
        max_usd = 2.0 * sum(PRICE.usd(c.prompt_tokens_bound(), c.max_tokens) for c in calls)
        for share in (0.1, 0.25, 0.45, 0.65, 0.85, 1.1):
            process = _judge_process(session, directory, max_usd)
            while process.poll() is None:
                if len(journal.read_raw(directory)) >= share * num_calls:
                    process.kill()
                time.sleep(0.05)
        found = stats(url)
        # Sent before the kill reached the last process of the run, and not stored.
        in_flight = len(unanswered(directory))
        final = verdicts(directory)
        expected = {
            call.slot: parse(
                respond(JUDGE, list(call.messages)), call.form, nonce=call.nonce
            ).verdict
            for call in calls
        }
        usd = sum(record["usd"] for record in journal.read_raw(directory))
    return {
        "trial": "5 kill -9",
        "judged": len(final),
        "of": num_calls,
        "repeats": found["served"] - found["distinct"],
        "in_flight_at_kills": in_flight,
        "scores_identical": final == expected,
        "usd": usd,
        "max_usd": max_usd,
    }


def unanswered(directory: str) -> dict[tuple[str, int], float]:
    """Attempts that were written down and sent, and whose response nobody stored."""
    return journal.unknown_attempts(journal.read_intents(directory), journal.read_raw(directory))


def _judge_process(session: Session, directory: str, max_usd: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "apps.eval", "judge", directory, "--judge", JUDGE]
    command += ["--concurrency", str(CONCURRENCY), "--requests-per-min", "1e6"]
    command += ["--tokens-per-min", "1e9", "--max-usd", str(max_usd), "--self-checks", "0"]
    command += ["--no-canaries", "--usd-per-million-prompt-tokens", "30"]
    command += ["--usd-per-million-completion-tokens", "60"]
    env = {**os.environ, **session.child_env()}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL)


def ratings_wall_s() -> float:
    """100,000 battles of 50 models on 1,000 questions, 200 resamples."""
    rng = np.random.default_rng(0)
    first_N = rng.integers(50, size=100_000)
    battles = ratings.Battles(
        models=tuple(f"m{i}" for i in range(50)),
        first_N=first_N,
        second_N=(first_N + rng.integers(1, 50, size=100_000)) % 50,
        outcome_N=rng.choice([0.0, 0.5, 1.0], size=100_000),
        cluster_N=rng.integers(1000, size=100_000),
    )
    started = time.monotonic()
    ratings.leaderboard(battles, num_resamples=200)
    return time.monotonic() - started


def show(results: list[dict[str, Any]], kills: dict[str, Any] | None, rated_s: float) -> None:
    print(
        f"{'trial':<22}{'ideal s':>9}{'Cria s':>9}{'x ideal':>9}{'FastChat s':>12}{'ratio':>8}"
        f"{'Cria judged':>14}{'FastChat judged':>17}{'requests':>14}"
    )
    for row in results:
        ours, theirs = row["cria"], row.get("fastchat")
        if theirs is None:
            print(
                f"{row['trial']:<22}{row['ideal_s']:>9.1f}{ours['wall_s']:>9.1f}"
                f"{ours['wall_s'] / row['ideal_s']:>9.2f}{'':>20}{ours['judged']:>7} of "
                f"{ours['of']}  split {ours['split']}"
            )
            continue
        print(
            f"{row['trial']:<22}{row['ideal_s']:>9.1f}{ours['wall_s']:>9.1f}"
            f"{ours['wall_s'] / row['ideal_s']:>9.2f}{theirs['wall_s']:>12.1f}"
            f"{theirs['wall_s'] / ours['wall_s']:>8.2f}{ours['judged']:>7} of {ours['of']}"
            f"{theirs['judged']:>10} of {theirs['of']}{ours['requests']:>8}/{theirs['requests']}"
        )
    if kills:
        print(
            f"5 kill -9: {kills['judged']} of {kills['of']} judged, {kills['repeats']} repeats of "
            f"{kills['in_flight_at_kills']} in flight at the kills, scores identical: "
            f"{kills['scores_identical']}, ${kills['usd']:.2f} of --max-usd {kills['max_usd']:.2f}"
        )
    print(f"ratings: 100,000 battles x 50 models, 200 bootstraps: {rated_s:.2f} s (bar 2 s)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", help="where the JSON goes; results/judge.json if not given")
    parser.add_argument(
        "--trials", default="latency,rate,faults,pool,kills", help="comma-separated"
    )
    parser.add_argument("--num-calls", type=int, default=640)
    parser.add_argument("--latency-s", type=float, default=2.0)
    args = parser.parse_args()
    calls, latency_s = args.num_calls, args.latency_s
    by_latency_s = calls * latency_s / CONCURRENCY
    by_rate_s = calls * 60.0 / RATE_PER_MIN
    with tempfile.TemporaryDirectory() as directory:
        plan = planned(directory, calls)
    with ray_session() as session:
        warm = [replace(call, repeat=99) for call in plan[:2]]
        with tempfile.TemporaryDirectory() as directory, endpoint():
            cria(warm, directory, [openai_endpoint(JUDGE, 30.0)], [limits(1e6)])
        trials = {
            "latency": ("constant latency", by_latency_s, 1e6, {}),
            "rate": (
                f"limit {RATE_PER_MIN:g}/min",
                max(by_latency_s, by_rate_s),
                RATE_PER_MIN,
                {"requests_per_min": RATE_PER_MIN},
            ),
            "faults": ("20 % faults", by_latency_s, 1e6, {"fault_share": 0.2}),
        }
        asked = args.trials.split(",")
        results = [
            side_by_side(title, plan, ideal_s, rate, latency_s=latency_s, **flags)
            for name, (title, ideal_s, rate, flags) in trials.items()
            if name in asked
        ]
        if "pool" in asked:
            results.append(three_endpoints(plan, latency_s))
        kills = killed_five_times(session, calls, latency_s) if "kills" in asked else None
    rated_s = ratings_wall_s()
    show(results, kills, rated_s)
    save("judge", {"trials": results, "kills": kills, "ratings_s": rated_s}, args.out)


if __name__ == "__main__":
    main()
