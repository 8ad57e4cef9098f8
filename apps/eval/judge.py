"""`judge` and `reparse`: plan, say what it costs, make the calls that are missing, parse.

    python -m apps.eval judge eval/ --judge gpt-4o --max-usd 20
    python -m apps.eval judge eval/ --judge local=http://127.0.0.1:8000/v1#llama
    ray job submit --working-dir . -- python -m apps.eval judge eval/ --judge gpt-4o --max-usd 20

Reads questions.jsonl and answers/ of the folder; writes judgments/.
"""

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from apps.common.command.events import Reporter
from apps.common.command.runtime import ray_session
from apps.common.errors import ConfigError, CriaError, NotFoundError
from apps.common.files import config as configs
from apps.common.files import storage
from apps.eval.adaptive import forecast
from apps.eval.adaptive.rounds import Result, Rounds
from apps.eval.calls import journal
from apps.eval.calls.styles import shown_url
from apps.eval.config import JudgeConfig, ReparseConfig
from apps.eval.folder import load_folder, read_plan, write_plan
from apps.eval.judging import batch_api
from apps.eval.judging.asking import Standing, proven, standings, unreadable_judges
from apps.eval.judging.estimate import Estimate, estimate_calls
from apps.eval.judging.job import Job, OnProgress, Persistence, RunResult, Tally
from apps.eval.judging.judges import Judge, find_judges, prices
from apps.eval.judging.manifest import write_manifest
from apps.eval.judging.offline import LABEL, is_offline
from apps.eval.judging.plan import Plan, make_plan
from apps.eval.protocols.parsing import PARSER_VERSION, parse_record
from apps.eval.scores.judgments import Judgment, contests, load_judgments

# One event loop holds this many calls in flight with little to do; a process costs 140 MB.
CALLS_PER_TASK = 64
ASKED_AGAIN = 1.1
"""requests a judgment, from which it is told"""
Connect = Callable[[], object]
"""joins Ray, once"""


def judge(config: JudgeConfig, reporter: Reporter) -> None:
    questions, answers = load_folder(config.dir)
    judges = find_judges(config)
    plan = make_plan(config, questions, answers, {name: j.model for name, j in judges.items()})
    known = _standings(config, plan)
    estimate = estimate_calls(known, journal.read_raw(config.dir), judges)
    _tell_forecast(config, plan, len(questions), reporter)
    _tell_plan(config, plan, estimate, known, judges, reporter)
    if config.dry_run:
        return
    if not config.allow_missing:
        _refuse_incomplete(plan)
    configs.write_resolved(config, config.dir, name=f"judge-{plan.protocol}.yaml")
    with contextlib.ExitStack() as stack:
        # One Ray for all rounds, started when the first call needs it.
        connect = functools.cache(lambda: stack.enter_context(ray_session()))
        if config.adaptive:
            plan = _judge_in_rounds(config, plan, judges, reporter, connect)
        else:
            _judge_all(config, plan, judges, reporter, connect)
    _tell_end(config, plan, reporter)


def _judge_all(
    config: JudgeConfig,
    plan: Plan,
    judges: Mapping[str, Judge],
    reporter: Reporter,
    connect: Connect,
) -> None:
    """Makes what is missing of a plan."""
    write_plan(config, plan)
    known = _standings(config, plan)
    unreadable = unreadable_judges(known)
    asked = [one for one in known if one.call.judge not in unreadable]
    tally = Tally()
    try:
        if any(one.next_call is not None for one in asked):
            # Not the others: their open batches are collected when they are asked again.
            left = {name: one for name, one in judges.items() if name not in unreadable}
            tally = _make_calls(config, asked, left, reporter, connect)
    finally:  # what a run that was ended early has stored is reported too
        if journal.write_parsed(config.dir, parse_record, PARSER_VERSION):
            write_manifest(config, plan, prices(judges))
    tally.lost |= unreadable
    _refuse_unfinished(_standings(config, plan), tally)


def _judge_in_rounds(
    config: JudgeConfig,
    plan: Plan,
    judges: Mapping[str, Judge],
    reporter: Reporter,
    connect: Connect,
) -> Plan:
    """Round after round until the order is settled; the plan of what was judged.

    What comes next depends on what is stored alone, so a run that was killed goes on.
    """
    if any(len(call.models) != 2 for call in plan.calls):
        raise ConfigError(f"--adaptive compares models in pairs, and {plan.protocol} does not")
    answered = [one.call.slot for one in _standings(config, plan) if one.status]
    rounds, results = Rounds(plan, answered), list[Result]()
    while True:
        if rounds.plan.calls:
            _judge_all(config, rounds.plan, judges, reporter, connect)
            results = _results(_contest_judgments(config, plan.protocol))
        if not rounds.begin_next(results, config.confidence):
            break
    reporter.event(
        "judge.order", contests=len(results), left_unasked=rounds.num_left, models=rounds.models
    )
    return rounds.plan


def _results(judged: Sequence[Judgment]) -> list[Result]:
    """The outcome of every contest that has been judged."""
    return [
        (*contest.models, contest.outcome)
        for contest in contests(judged)
        if contest.outcome is not None
    ]


def _contest_judgments(config: JudgeConfig, protocol: str) -> list[Judgment]:
    """What these judges were asked by this protocol, without canaries and self-checks."""
    judged = load_judgments(config.dir) if read_plan(config.dir) else []
    return [
        item
        for item in judged
        if item.kind == "contest" and item.protocol == protocol and item.judge in config.judge_names
    ]


def _scored(judged: Sequence[Judgment]) -> list[forecast.Scored]:
    """Every model's mean score on each question that has one."""
    scores: dict[str, dict[str, list[float]]] = {}
    for item in judged:
        for model, score in zip(item.models, item.scores or (), strict=False):
            scores.setdefault(model, {}).setdefault(item.question_id, []).append(score)
    return [
        forecast.Scored(model=model, by_question={q: fmean(given) for q, given in mine.items()})
        for model, mine in scores.items()
    ]


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


def _standings(config: JudgeConfig, plan: Plan) -> list[Standing]:
    return standings(plan.calls, journal.read_raw(config.dir), config.max_asks)


def _tell_plan(
    config: JudgeConfig,
    plan: Plan,
    estimate: Estimate,
    known: Sequence[Standing],
    judges: Mapping[str, Judge],
    reporter: Reporter,
) -> None:
    """What will be asked, what not, and what it takes."""
    equal = sum(one.next_call is not None and one.call.is_equal for one in known)
    final = sum(one.next_call is None and one.status != "ok" for one in known)
    optional = {
        "without_reference": len(plan.without_reference),
        "unanswered": len(plan.unanswered),
        "ties_of_equal_answers": equal,
        "final_without_verdict": final,
    }
    reporter.event(
        "judge.plan",
        protocol=plan.protocol,
        judges=[LABEL if is_offline(name) else name for name in judges],
        calls=estimate.calls,
        already_stored=estimate.stored,
        prompt_tokens=estimate.prompt_tokens,
        completion_tokens=estimate.completion_tokens,
        usd=None if estimate.usd is None else round(estimate.usd, 4),
        usd_at_most=None if estimate.usd_at_most is None else round(estimate.usd_at_most, 4),
        minutes=round(estimate.minutes, 2),
        **{name: count for name, count in optional.items() if count},
    )
    if repairs := sum(one.next_call is not None and bool(one.next_call.repair) for one in known):
        reporter.line(
            f"{repairs} stored judgments cannot be read and their verdict alone was asked for in "
            "vain or not yet: it is asked for first, before any new judgment."
        )
    if final:
        reporter.line(
            f"{final} judgments without a verdict are final and will not be asked for again; "
            f"{estimate.calls} will be asked for."
        )
    intents, responses = journal.read_intents(config.dir), journal.read_raw(config.dir)
    paid = journal.paid_beside_bound(intents, responses)
    beyond = {name for name, usd, bound_usd in paid if 0 < bound_usd < usd and name in judges}
    if beyond:
        reporter.line(
            f"Calls of {', '.join(sorted(beyond))} have cost more than --max-tokens allows, so the "
            "run may cost more than usd_at_most; --max-usd is kept by what they cost."
        )
    again = [f"{name} {n:.2g}" for name, n in estimate.requests.items() if n >= ASKED_AGAIN]
    if again and estimate.calls:
        reporter.line(
            f"Requests a judgment so far: {', '.join(again)}, because --max-tokens cut it off or "
            "it could not be read; usd counts them, usd_at_most only the next one of each."
        )
    if unpriced := [name for name, judge in judges.items() if judge.price is None]:
        reporter.line(
            f"The price of {', '.join(unpriced)} is not listed, so no dollars are estimated; give "
            "--usd-per-million-prompt-tokens and --usd-per-million-completion-tokens."
        )


def _tell_forecast(config: JudgeConfig, plan: Plan, num_questions: int, reporter: Reporter) -> None:
    """What so many questions can tell, and what the judgments so far say about it."""
    judged = _contest_judgments(config, plan.protocol)
    scale = plan.calls[0].form.scale
    if scale is not None:
        known = _scored(judged)
        reporter.line(forecast.score_sentence(num_questions, scale, known))
        if told := forecast.closest_scores_sentence(known):
            reporter.line(told)
    if all(len(call.models) != 2 for call in plan.calls):
        return
    reporter.line(forecast.sentence(num_questions))
    met: dict[tuple[str, str], list[float]] = {}
    for first, second, share in _results(judged):
        met.setdefault((first, second), []).append(share)
    if met:
        closest = min(met, key=lambda pair: abs(sum(met[pair]) / len(met[pair]) - 0.5))
        shares = met[closest]
        reporter.line(forecast.pair_sentence(*closest, sum(shares), len(shares)))


def _tell_end(config: JudgeConfig, plan: Plan, reporter: Reporter) -> None:
    known = _standings(config, plan)
    counts = Counter(one.status or "missing" for one in known)
    counts["missing"] += len(plan.unjudged)
    total = len(known) + len(plan.unjudged)
    names = ("ok", "unparsed", "refused", "truncated", "missing")
    reporter.event("judge.done", judgments=total, **{name: counts[name] for name in names})
    again = sum(one.next_call is not None for one in known)
    final = len(known) - again - counts["ok"]
    if counts["ok"] == total:
        return
    told = f"{counts['ok']} of {total} judgments can be scored"
    if final:
        told += f"; {final} have no verdict and are final, so nobody is asked for them again"
    if again:
        told += f"; {again} are asked for when the command is run again"
    if plan.unjudged:
        told += f"; {len(plan.unjudged)} lack an answer"
    if known and not counts["ok"]:
        raise CriaError(f"{told}; their texts are in judgments/raw.jsonl")
    reporter.line(f"{told}. `report --allow-missing` shows n of N everywhere.")


def _refuse_incomplete(plan: Plan) -> None:
    if plan.unanswered:
        model, question_id = plan.unanswered[0]
        raise ConfigError(
            f"{len(plan.unanswered)} answers are missing, such as {model}'s to question "
            f"{question_id}; run `answer` again to make them, or judge the others with "
            "--allow-missing; a chatbot that said nothing needs a line with an empty text"
        )


def _make_calls(
    config: JudgeConfig,
    known: Sequence[Standing],
    judges: Mapping[str, Judge],
    reporter: Reporter,
    connect: Connect,
) -> Tally:
    """Makes the next call about every judgment, and what follows from it."""
    job = _job(config, known, judges)
    with reporter.progress("judge", total=len(job.calls), unit="calls") as bar:
        seen = 0

        def on_progress(stored: int, spent_usd: float, gate: dict[str, float]) -> None:
            nonlocal seen
            trouble = {name: gate[name] for name in ("errors", "rate_limited") if gate.get(name)}
            bar.advance(stored - seen, usd=round(spent_usd, 4), **trouble)
            seen = stored

        result = _run_job(job, config, on_progress, connect)
    tally = result.tally
    reporter.event(
        "judge.calls",
        stored=tally.stored,
        unreadable=tally.unreadable,
        failed=tally.failed,
        usd=round(result.spent_usd, 4),
        **({"estimated": tally.estimated} if tally.estimated else {}),
        **({"paid_in_vain": tally.paid_in_vain} if tally.paid_in_vain else {}),
        **{name: round(value, 2) for name, value in result.gate.items()},
    )
    _tell_endpoints(result, job, reporter)
    return tally


def _refuse_unfinished(known: Sequence[Standing], tally: Tally) -> None:
    """Raises CriaError where calls were left, and says of which judges and why."""
    told = [_lost_sentence(judge, error, known) for judge, error in tally.lost.items()]
    if tally.stopped:
        told.append(f"Stopped by the budget: {'; '.join(tally.stopped.values())}")
    if tally.failed:
        told.append(
            f"{tally.failed} calls found no response (last: {tally.last_error}); run the same "
            "command again: stored responses are not repeated"
        )
    if told:
        raise CriaError("; ".join(told))


def _lost_sentence(judge: str, error: CriaError, known: Sequence[Standing]) -> str:
    left = sum(one.call.judge == judge and one.next_call is not None for one in known)
    who = "" if repr(judge) in error.sentence else f"{judge!r}: "
    return f"{who}{error.sentence}" + (f"; {left} of its judgments stay open" if left else "")


def _tell_endpoints(result: RunResult, job: Job, reporter: Reporter) -> None:
    for judge, lost in result.lost_endpoints.items():
        if judge not in result.tally.lost:  # which says why itself
            for number, why in lost.items():
                where = shown_url(job.endpoints[judge][number].base_url)
                reporter.line(f"{where} was asked no more, the others of {judge} went on: {why}.")
    for sentence in sorted(result.tally.learned):
        reporter.line(f"The endpoint of {sentence}.")
    if result.tally.estimated:
        reporter.line(
            f"{result.tally.estimated} responses came without a count of tokens that can be true; "
            "each is charged the most that it can have cost."
        )
    if result.tally.paid_in_vain:
        reporter.line(
            f"{result.tally.paid_in_vain} calls brought no reply and may have been billed; each is "
            "charged the most that it can have cost."
        )


def _job(config: JudgeConfig, known: Sequence[Standing], judges: Mapping[str, Judge]) -> Job:
    calls = tuple(one.next_call for one in known if one.next_call is not None)
    asked = {name: judge for name, judge in judges.items() if judge.endpoints}
    widest = max((sum(x.concurrency for x in judge.limits) for judge in asked.values()), default=1)
    in_flight = sum(limit.concurrency for judge in asked.values() for limit in judge.limits)
    return Job(
        calls=calls,
        directory=storage.absolute(config.dir),
        endpoints={name: judge.endpoints for name, judge in asked.items()},
        limits={name: judge.limits for name, judge in asked.items()},
        prices=prices(judges),
        persistence=Persistence(
            max_attempts=config.max_attempts,
            max_asks=config.max_asks,
            # Twice, so that a call is sent while another's response goes to the disk.
            width=2 * widest,
        ),
        num_tasks=min(config.num_tasks or max(1, -(-in_flight // CALLS_PER_TASK)), len(calls)),
        max_usd=config.max_usd,
        proven=proven(known),
    )


def _run_job(job: Job, config: JudgeConfig, on_progress: OnProgress, connect: Connect) -> RunResult:
    if config.backend == "batch":
        return asyncio.run(batch_api.run(job, on_progress, config.batch_poll_s))
    connect()
    from apps.eval.judging import on_ray  # dry runs, batches and `reparse` do without Ray

    return on_ray.run(job, on_progress)
