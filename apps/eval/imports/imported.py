"""Judgments that others paid for, written as an evaluation folder that `report` reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from apps.common.errors import InputError
from apps.common.files import lineage, parts, storage
from apps.eval.calls import journal
from apps.eval.calls.lines import ResponseLine
from apps.eval.calls.reply import Reply
from apps.eval.config import JudgeConfig, ReplayConfig
from apps.eval.folder import questions_uri, write_plan
from apps.eval.judging.call import Call
from apps.eval.judging.manifest import prompts_digest
from apps.eval.judging.plan import Plan
from apps.eval.protocols.load import BUILT_IN
from apps.eval.protocols.parsing import PARSER_VERSION, parse_record
from apps.eval.records.answer import Answer, answers_uri
from apps.eval.records.question import Question, dump_questions


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """What a public layout holds, as the calls that would have made it."""

    questions: Sequence[Question]
    answers: Mapping[str, Mapping[str, Answer]]
    calls: Sequence[Call]
    """every judgment that belongs to the layout, held by it or not"""
    responses: Mapping[str, tuple[str, str]]
    """{key of a call: (the judge's text, the judge as its layout names it)}"""
    files: Mapping[str, str]
    """{name: file} that the judgments come from"""
    prompts: str
    """whose wording the judge was asked in"""


def refuse_existing(out: str) -> None:
    if storage.exists(questions_uri(out)):
        raise InputError(f"{out} is an evaluation folder already; give a new --out to import into")


def write_imported(imported: Imported, config: ReplayConfig, out: str) -> None:
    """The questions last: a folder is one by them, and is imported anew without."""
    for name, made in imported.answers.items():
        parts.replace(answers_uri(out, name), b"".join(a.to_json() for a in made.values()))
    held = [call for call in imported.calls if call.key in imported.responses]
    lines = [orjson.dumps(_line(call, *imported.responses[call.key])) + b"\n" for call in held]
    parts.replace(journal.raw_path(out), b"".join(lines))
    for protocol in BUILT_IN:
        if calls := [call for call in imported.calls if call.protocol == protocol]:
            judges = tuple(sorted({call.judge for call in calls}))
            plan = Plan(
                protocol=protocol,
                calls=tuple(calls),
                unanswered=(),
                unjudged=(),
                without_reference=(),
            )
            write_plan(JudgeConfig(dir=out, protocol=protocol, judge=judges), plan)
            _write_manifest(imported, config, out, protocol, calls)
    journal.write_parsed(out, parse_record, PARSER_VERSION)
    storage.write_atomic(questions_uri(out), dump_questions(imported.questions))


def _line(call: Call, text: str, judge: str) -> ResponseLine:
    reply = Reply(text=text, finish_reason="stop", endpoint_model=judge)
    return {**call.free_line(reply, created_s=0.0), "is_imported": True}


def _write_manifest(
    imported: Imported, config: ReplayConfig, out: str, protocol: str, calls: Sequence[Call]
) -> None:
    record = lineage.collect(
        inputs={name: storage.digest_file(uri) for name, uri in imported.files.items()},
        config=config,
        protocol=protocol,
        judges=sorted({call.judge for call in calls}),
        prompts_digest=prompts_digest(calls),
        prompts=imported.prompts,
    )
    folder = journal.judgments_dir(out)
    storage.write_json(storage.join(folder, f"manifest-{protocol}.json"), record)
