"""`judge` and `reparse`: plan, say what it costs, make the calls that are missing, parse."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from apps.common import config as configs
from apps.common import lineage, storage
from apps.common.errors import ConfigError, CriaError, NotFoundError
from apps.common.events import Reporter
from apps.common.runtime import ray_session
from apps.eval import batch, journal
from apps.eval.answers import load_all
from apps.eval.calling import Job, OnProgress, Outcome, Persistence
from apps.eval.calls import Call
from apps.eval.client import openai_endpoint
from apps.eval.config import JudgeConfig, ReparseConfig
from apps.eval.limits import Limits
from apps.eval.offline import LABEL, is_offline
from apps.eval.plan import Plan, make_plan, parse_record, remaining
from apps.eval.prices import BATCH_DISCOUNT, Price, price_of
from apps.eval.questions import Question, load_questions

# What a judgment is long on average, as a share of the most it may be: 130 of 1,024 tokens in the
# 320 public GPT-4 reviews.
TYPICAL_LENGTH_SHARE = 0.13


# One event loop holds this many calls in flight with little to do; a process costs 140 MB.
CALLS_PER_TASK = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What the calls still to be made will take."""

    calls: int
    stored: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    usd_at_most: float | None
    minutes: float


def questions_uri(directory: str) -> str:
    return storage.join(directory, "questions.jsonl")


def plan_uri(directory: str) -> str:
    return storage.join(journal.judgments_dir(directory), "plan.jsonl")


def load_folder(directory: str) -> tuple[list[Question], dict[str, Any]]:
    """Questions and answers of an evaluation folder."""
    if not storage.exists(questions_uri(directory)):
        raise NotFoundError(
            f"{directory} is not an evaluation folder: it has no questions.jsonl; make it with "
            "`python -m apps.eval answer --questions F --model NAME=URL --out DIR`"
        )
    questions = load_questions(questions_uri(directory))
    return questions, load_all(directory, questions)


def judge(config: JudgeConfig, reporter: Reporter) -> None:
    questions, answers = load_folder(config.dir)
    plan = make_plan(config, questions, answers)
    prices = _prices(config)
    left = remaining(plan.calls, journal.read_raw(config.dir), config.max_asks)
    estimate = estimate_calls(config, left, len(plan.calls) - len(left), prices)
    reporter.event("judge.plan", **_plan_fields(config, plan, estimate))
    if config.dry_run:
        return
    _refuse_incomplete(plan)
    configs.write_resolved(config, config.dir, name=f"judge-{config.protocol}.yaml")
    _write_plan(config, plan)
    if left:
        _make_calls(config, left, prices, reporter)
    journal.write_parsed(config.dir, parse_record)
    _write_manifest(config, plan, prices)
    counts = count_statuses(config.dir, plan.calls)
    reporter.event("judge.done", judgments=len(plan.calls), **counts)
    if counts["ok"] < len(plan.calls):
        reporter.line(
            f"{counts['ok']} of {len(plan.calls)} judgments can be scored; run the command again "
            "for those that are missing, or report with --allow-missing."
        )


def reparse(config: ReparseConfig, reporter: Reporter) -> None:
    count = journal.write_parsed(config.dir, parse_record)
    if not count:
        raise NotFoundError(f"{config.dir} has no judgments; run `python -m apps.eval judge` first")
    records = journal.read_lines(journal.parsed_path(config.dir))
    statuses = [record["status"] for record in records]
    reporter.event(
        "reparse.done",
        judgments=count,
        **{status: statuses.count(status) for status in sorted(set(statuses))},
        file=journal.parsed_path(config.dir),
    )


def estimate_calls(
    config: JudgeConfig, calls: Sequence[Call], stored: int, prices: dict[str, Price | None]
) -> Estimate:
    prompt = sum(call.prompt_tokens_estimate() for call in calls if not is_offline(call.judge))
    typical = [int(call.max_tokens * TYPICAL_LENGTH_SHARE) for call in calls]
    completion = sum(
        n for n, call in zip(typical, calls, strict=True) if not is_offline(call.judge)
    )
    known = all(prices[call.judge] for call in calls)
    usd = at_most = None
    if known:
        usd = at_most = 0.0
        for call, tokens in zip(calls, typical, strict=True):
            price = prices[call.judge]
            assert price is not None
            usd += price.usd(call.prompt_tokens_estimate(), tokens)
            at_most += price.usd(call.prompt_tokens_bound(), call.max_tokens)
    paid = [call for call in calls if not is_offline(call.judge)]
    # GPT-4-class judges write about 40 tokens a second after half a second.
    mean_s = 0.5 + (completion / len(paid) / 40 if paid else 0.0)
    minutes = max(
        len(paid) * mean_s / config.concurrency / 60,
        len(paid) / config.requests_per_min,
        (prompt + completion) / config.tokens_per_min,
    )
    return Estimate(
        calls=len(calls),
        stored=stored,
        prompt_tokens=prompt,
        completion_tokens=completion,
        usd=usd,
        usd_at_most=at_most,
        minutes=minutes,
    )


def count_statuses(directory: str, calls: Sequence[Call]) -> dict[str, int]:
    """How many planned judgments are ok, unparsed, refused, truncated or missing."""
    records = journal.read_raw(directory)
    best: dict[str, str] = {}
    for record in records:
        status = parse_record(record)["status"]
        if best.get(record["slot"]) != "ok":
            best[record["slot"]] = status
    counts = {"ok": 0, "unparsed": 0, "refused": 0, "truncated": 0, "missing": 0}
    for call in calls:
        counts[best.get(call.slot, "missing")] += 1
    return counts


def _plan_fields(config: JudgeConfig, plan: Plan, estimate: Estimate) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "protocol": config.protocol,
        "judges": [LABEL if is_offline(judge) else judge for judge in config.judge],
        "calls": estimate.calls,
        "already_stored": estimate.stored,
        "prompt_tokens": estimate.prompt_tokens,
        "completion_tokens": estimate.completion_tokens,
        "usd": None if estimate.usd is None else round(estimate.usd, 4),
        "usd_at_most": None if estimate.usd_at_most is None else round(estimate.usd_at_most, 4),
        "minutes": round(estimate.minutes, 2),
    }
    if plan.without_reference:
        fields["without_reference"] = len(plan.without_reference)
    if plan.unanswered:
        fields["unanswered"] = len(plan.unanswered)
    return fields


def _refuse_incomplete(plan: Plan) -> None:
    if plan.unanswered:
        model, question_id = plan.unanswered[0]
        raise ConfigError(
            f"{len(plan.unanswered)} answers are missing, such as {model}'s to question "
            f"{question_id}; run `answer` again to make them before judging"
        )


def _prices(config: JudgeConfig) -> dict[str, Price | None]:
    prices = {
        judge: price_of(
            judge, config.usd_per_million_prompt_tokens, config.usd_per_million_completion_tokens
        )
        for judge in config.judge
    }
    unknown = [judge for judge, price in prices.items() if price is None]
    if unknown and config.max_usd is not None:
        raise ConfigError(
            f"--max-usd needs the price of {unknown[0]}, which is not listed; give "
            "--usd-per-million-prompt-tokens and --usd-per-million-completion-tokens"
        )
    if config.backend == "batch":
        return {name: price and price.discounted(BATCH_DISCOUNT) for name, price in prices.items()}
    return prices


def _make_calls(
    config: JudgeConfig,
    calls: Sequence[Call],
    prices: dict[str, Price | None],
    reporter: Reporter,
) -> None:
    job = Job(
        calls=tuple(calls),
        directory=storage.absolute(config.dir),
        endpoints={
            judge: openai_endpoint(judge, config.timeout_s)
            for judge in config.judge
            if not is_offline(judge)
        },
        prices=prices,
        limits=Limits(
            requests_per_min=config.requests_per_min,
            tokens_per_min=config.tokens_per_min,
            concurrency=config.concurrency,
        )
        if not all(is_offline(judge) for judge in config.judge)
        else Limits(requests_per_min=1e9, tokens_per_min=1e12, concurrency=config.concurrency),
        persistence=Persistence(
            max_attempts=config.max_attempts,
            max_asks=config.max_asks,
            # Twice, so that a call is sent while another's response goes to the disk.
            width=2 * config.concurrency,
        ),
        num_tasks=min(config.num_tasks or -(-config.concurrency // CALLS_PER_TASK), len(calls)),
        max_usd=config.max_usd,
    )
    with reporter.progress("judge", total=len(calls), unit="calls") as bar:
        seen = 0

        def on_progress(stored: int, spent_usd: float, gate: dict[str, float]) -> None:
            nonlocal seen
            trouble = {name: gate[name] for name in ("errors", "rate_limited") if gate.get(name)}
            bar.advance(stored - seen, usd=round(spent_usd, 4), **trouble)
            seen = stored

        outcome = _run_job(job, config, on_progress)
    tally = outcome.tally
    reporter.event(
        "judge.calls",
        stored=tally.stored,
        unreadable=tally.unreadable,
        failed=tally.failed,
        usd=round(outcome.spent_usd, 4),
        **{name: round(value, 2) for name, value in outcome.gate.items()},
    )
    if tally.stopped:
        journal.write_parsed(config.dir, parse_record)
        raise CriaError(f"Stopped by the budget: {tally.stopped}.")
    if tally.failed:
        journal.write_parsed(config.dir, parse_record)
        raise CriaError(
            f"{tally.failed} of {len(calls)} calls found no response (last: {tally.last_error}); "
            "run the same command again: stored responses are not repeated"
        )


def _run_job(job: Job, config: JudgeConfig, on_progress: OnProgress) -> Outcome:
    if config.backend == "batch":
        return asyncio.run(batch.run(job, on_progress, config.batch_poll_s))
    with ray_session():
        from apps.eval import fanout  # dry runs, batches and `reparse` do without Ray

        return fanout.run(job, on_progress)


def _write_plan(config: JudgeConfig, plan: Plan) -> None:
    """Replaces the part of plan.jsonl that these protocol and judges make up."""
    kept = [
        record
        for record in journal.read_lines(plan_uri(config.dir))
        if record["protocol"] != config.protocol or record["judge"] not in config.judge
    ]
    made = [
        {
            "slot": call.slot,
            "protocol": call.protocol,
            "question_id": call.question_id,
            "models": list(call.models),
            "order": call.order,
            "repeat": call.repeat,
            "turn": call.turn,
            "judge": call.judge,
            "kind": call.kind,
        }
        for call in plan.calls
    ]
    lines = b"".join(orjson.dumps(record) + b"\n" for record in kept + made)
    storage.write_atomic(plan_uri(config.dir), lines)


def _write_manifest(config: JudgeConfig, plan: Plan, prices: dict[str, Price | None]) -> None:
    digests = {"questions": storage.digest_file(questions_uri(config.dir))}
    record = lineage.collect(
        inputs=digests,
        config=config,
        protocol=config.protocol,
        judges=list(config.judge),
        judge_snapshots=_snapshots(config.dir, config.protocol),
        prompts_digest=prompts_digest(plan.calls),
        prompts="Cria's own, hardened" if config.prompt_file is None else config.prompt_file,
        without_reference=list(plan.without_reference),
        prices={name: asdict(price) if price else None for name, price in prices.items()},
    )
    name = f"manifest-{config.protocol}.json"
    storage.write_json(storage.join(journal.judgments_dir(config.dir), name), record)


def prompts_digest(calls: Sequence[Call]) -> str:
    """Of all prompts, in the plan's order."""
    from apps.eval.calls import digest

    return digest([[call.messages, call.parameters] for call in calls])


def _snapshots(directory: str, protocol: str) -> dict[str, list[str]]:
    """Model names and fingerprints that the endpoint itself reported, per judge."""
    found: dict[str, set[str]] = {}
    for record in journal.read_raw(directory):
        if record["protocol"] == protocol:
            name = f"{record['endpoint_model']} {record.get('fingerprint') or ''}".strip()
            found.setdefault(record["judge"], set()).add(name)
    return {judge: sorted(names) for judge, names in sorted(found.items())}
