"""One process's judging run over a real endpoint, gate and journal, as tests start it."""

from pathlib import Path

from apps.eval.calls import journal
from apps.eval.calls.client import complete, connect
from apps.eval.calls.endpoints import openai_endpoint
from apps.eval.calls.gate_pool import GatePool
from apps.eval.calls.journal import Journal
from apps.eval.calls.lines import Bound
from apps.eval.calls.rate_gate import Limits
from apps.eval.calls.reply import Reply
from apps.eval.config import JudgeConfig
from apps.eval.judging.asking import proven, remaining, standings
from apps.eval.judging.call import Call
from apps.eval.judging.job import Persistence, Tally
from apps.eval.judging.loop import Caller
from apps.eval.judging.plan import make_plan
from apps.eval.judging.prices import Price
from apps.eval.protocols.parsing import parse_record
from apps.eval.records.answer import Answer
from apps.eval.records.question import Question

PRICE = Price(usd_per_million_prompt_tokens=30.0, usd_per_million_completion_tokens=60.0)
PRICES = {"judge-4": PRICE, "judge-mini": PRICE.discounted(0.1)}
FAST = Persistence(max_attempts=12, max_asks=6, first_backoff_s=0.01, max_backoff_s=0.05, width=64)


TEXTS = {"good": lambda q: q.turns[0], "poor": lambda q: "Something."}


def planned(
    num_questions: int, protocol: str = "pairwise-swap", texts=TEXTS, **settings
) -> list[Call]:
    """Calls about two models that both answered; `good` shares more words with the question."""
    questions = [
        Question(question_id=str(i), category="generic", turns=(f"Tell me about item {i}",))
        for i in range(num_questions)
    ]
    answers = {
        name: {
            q.question_id: Answer(question_id=q.question_id, turn_texts=(text(q),), model=name)
            for q in questions
        }
        for name, text in texts.items()
    }
    settings = {"judge": ("judge-4",), "self_checks": 0, "canaries": False, **settings}
    config = JudgeConfig(dir="unused", protocol=protocol, **settings)
    return list(make_plan(config, questions, answers).calls)


async def judge(calls: list[Call], directory: Path, max_usd: float | None = None) -> Tally:
    """One process's run over the real endpoint, gate and journal; raises what lost its judge."""
    writer = Journal(str(directory), max_usd)
    await writer.begin()
    limits = [Limits(requests_per_min=6e5, tokens_per_min=6e8, concurrency=32)]
    try:
        async with connect(openai_endpoint("judge-4", 0.5)) as client:

            async def ask(call: Call, number: int) -> Reply:
                return await complete(client, call.sent_messages, call.parameters)

            left = remaining(calls, journal.read_raw(str(directory)), FAST.max_asks)
            caller = Caller(
                ask=ask,
                gates={name: GatePool(limits) for name in PRICES},
                ledger=writer,
                prices=PRICES,
                persistence=FAST,
                proven=proven(standings(calls, journal.read_raw(str(directory)), FAST.max_asks)),
            )
            tally = await caller.make(left)
            for error in tally.lost.values():
                raise error
            return tally
    finally:
        writer.close()


def bound(key: str, usd: float) -> Bound:
    """A call of the judge that tests have, for the journal."""
    return Bound(key, usd, "judge-4")


def response(key: str, usd: float) -> dict[str, object]:
    """What came of it, as far as the journal reads it."""
    return {"key": key, "usd": usd, "judge": "judge-4"}


def statuses(directory: Path) -> list[str]:
    return [parse_record(record)["status"] for record in journal.read_raw(str(directory))]
