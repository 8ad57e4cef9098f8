"""`judge` and `reparse`: plan, say what it costs, make the calls that are missing, parse."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from apps.common.command.events import Reporter
from apps.common.command.runtime import ray_session
from apps.common.errors import ConfigError, CriaError, NotFoundError
from apps.common.files import config as configs
from apps.common.files import storage
from apps.eval.calls import journal
from apps.eval.calls.client import openai_endpoint
from apps.eval.calls.rate_gate import Limits
from apps.eval.config import JudgeConfig, ReparseConfig
from apps.eval.folder import load_folder, write_plan
from apps.eval.judging import batch_api
from apps.eval.judging.call import Call
from apps.eval.judging.estimate import Estimate, estimate_calls
from apps.eval.judging.loop import Job, OnProgress, Persistence, RunResult
from apps.eval.judging.manifest import write_manifest
from apps.eval.judging.offline import LABEL, is_offline
from apps.eval.judging.parsing import PARSER_VERSION
from apps.eval.judging.plan import Plan, make_plan, parse_record, remaining
from apps.eval.judging.prices import BATCH_DISCOUNT, Price, price_of

# One event loop holds this many calls in flight with little to do; a process costs 140 MB.
CALLS_PER_TASK = 64


def judge(config: JudgeConfig, reporter: Reporter) -> None:
    questions, answers = load_folder(config.dir)
    plan = make_plan(config, questions, answers)
    prices = _prices(config)
    left = remaining(plan.calls, journal.read_raw(config.dir), config.max_asks)
    estimate = estimate_calls(config, left, len(plan.calls) - len(left), prices)
    reporter.event("judge.plan", **_plan_fields(config, plan, estimate))
    if unpriced := [judge for judge, price in prices.items() if price is None]:
        reporter.line(
            f"The price of {', '.join(unpriced)} is not listed, so no dollars are estimated; give "
            "--usd-per-million-prompt-tokens and --usd-per-million-completion-tokens."
        )
    if config.dry_run:
        return
    if not config.allow_missing:
        _refuse_incomplete(plan)
    configs.write_resolved(config, config.dir, name=f"judge-{config.protocol}.yaml")
    write_plan(config, plan)
    if left:
        _make_calls(config, left, prices, reporter)
    journal.write_parsed(config.dir, parse_record, PARSER_VERSION)
    write_manifest(config, plan, prices)
    planned = [*plan.calls, *plan.unjudged]
    counts = count_statuses(config.dir, planned)
    reporter.event("judge.done", judgments=len(planned), **counts)
    if counts["ok"] < len(planned):
        reporter.line(
            f"{counts['ok']} of {len(planned)} judgments can be scored; run the command again "
            "for those that are missing, or report with --allow-missing."
        )


def reparse(config: ReparseConfig, reporter: Reporter) -> None:
    count = journal.write_parsed(config.dir, parse_record, PARSER_VERSION)
    if not count:
        raise NotFoundError(f"{config.dir} has no judgments; run `python -m apps.eval judge` first")
    statuses = Counter(parse_record(record)["status"] for record in journal.read_raw(config.dir))
    reporter.event(
        "reparse.done",
        judgments=count,
        **dict(sorted(statuses.items())),
        file=journal.parsed_path(config.dir, PARSER_VERSION),
    )


def count_statuses(directory: str, calls: Sequence[Call]) -> dict[str, int]:
    """How many planned judgments are ok, unparsed, refused, truncated or missing."""
    best: dict[str, str] = {}
    for record in journal.read_raw(directory):
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
            f"{question_id}; run `answer` again to make them, or judge the others with "
            "--allow-missing; a chatbot that said nothing needs a line with an empty text"
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

        result = _run_job(job, config, on_progress)
    tally = result.tally
    reporter.event(
        "judge.calls",
        stored=tally.stored,
        unreadable=tally.unreadable,
        failed=tally.failed,
        usd=round(result.spent_usd, 4),
        **{name: round(value, 2) for name, value in result.gate.items()},
    )
    if tally.stopped:
        journal.write_parsed(config.dir, parse_record, PARSER_VERSION)
        raise CriaError(f"Stopped by the budget: {tally.stopped}.")
    if tally.failed:
        journal.write_parsed(config.dir, parse_record, PARSER_VERSION)
        raise CriaError(
            f"{tally.failed} of {len(calls)} calls found no response (last: {tally.last_error}); "
            "run the same command again: stored responses are not repeated"
        )


def _run_job(job: Job, config: JudgeConfig, on_progress: OnProgress) -> RunResult:
    if config.backend == "batch":
        return asyncio.run(batch_api.run(job, on_progress, config.batch_poll_s))
    with ray_session():
        from apps.eval.judging import on_ray  # dry runs, batches and `reparse` do without Ray

        return on_ray.run(job, on_progress)
