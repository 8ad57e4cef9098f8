"""`contamination`: do the questions occur in the training data?

    python -m apps.eval contamination built-in --data clean/ --out contamination.json
    python -m apps.eval contamination questions.jsonl --data pack/ --tokenizer BASE

Reads a clean folder (what people asked, turn by turn) or a pack (decoded, without what is trained
on). Two measures per question. One is the share of its word 8-grams that occur anywhere in the
data, as GPT-3's authors counted overlap (arXiv:2005.14165, appendix C, with 13 for long documents).
The other is the best Jaccard similarity of its words with one training text, among texts that share
a 4-gram with it. Words are those of every script, as apps/common/text/words.py splits them.
"""

# pyarrow and ahocorasick are partly unknown:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TypedDict

import ahocorasick
import numpy as np
import pyarrow.parquet as pq

from apps.common.command.events import Bar, Reporter
from apps.common.errors import InputError, NotFoundError
from apps.common.files import storage
from apps.common.files.schema import PACK_NAME
from apps.common.packs import SPLITS, Rows, open_pack
from apps.common.text.words import words
from apps.eval.config import ContaminationConfig
from apps.eval.records.question import Question, load_questions

GRAM, ANCHOR = 8, 4
BATCH_ROWS = 256


class QuestionOverlap(TypedDict):
    """How far one question occurs in the data; both figures lie in 0..1."""

    question_id: str
    overlap: float
    """the share of its grams that occur"""
    similarity: float
    """with the most alike training text"""


class Contaminated(QuestionOverlap):
    example: str
    """how that text begins"""


class Contamination(TypedDict):
    """contamination.json."""

    questions: int
    texts: int
    gram_words: int
    contaminated: list[Contaminated]
    per_question: list[QuestionOverlap]


def contamination(config: ContaminationConfig, reporter: Reporter) -> None:
    questions = load_questions(config.questions)
    texts = training_texts(config.data, config.tokenizer)
    with reporter.progress("contamination", unit="texts") as bar:
        result = measure(questions, _counted(texts, bar), config.max_overlap, config.max_similarity)
    storage.write_json(config.out, {"data": config.data, **result})
    reporter.event(
        "contamination.done",
        questions=result["questions"],
        contaminated=len(result["contaminated"]),
        texts=result["texts"],
        file=config.out,
    )


def _counted(texts: Iterator[str], bar: Bar) -> Iterator[str]:
    for text in texts:
        bar.advance(1)
        yield text


def measure(
    questions: Sequence[Question],
    texts: Iterator[str],
    max_overlap: float = 0.5,
    max_similarity: float = 0.8,
) -> Contamination:
    """The report: every question's figures, and those above either limit."""
    asked = {q.question_id: words(" ".join(q.turns)) for q in questions}
    automaton, grams = _automaton(asked)
    seen: dict[str, set[str]] = {question_id: set() for question_id in asked}
    best: dict[str, tuple[float, str]] = dict.fromkeys(asked, (0.0, ""))
    num_texts = 0
    for text in texts:
        num_texts += 1
        spoken = words(text)
        candidates: set[str] = set()
        for _, (gram, owners) in automaton.iter(f" {' '.join(spoken)} "):
            candidates |= owners
            for question_id in owners:
                seen[question_id].add(gram)
        for question_id in candidates:
            similarity = jaccard(asked[question_id], spoken)
            if similarity > best[question_id][0]:
                best[question_id] = (similarity, text[:400])
    rows: list[Contaminated] = [
        {
            "question_id": question_id,
            "overlap": len(seen[question_id] & grams[question_id])
            / max(1, len(grams[question_id])),
            "similarity": best[question_id][0],
            "example": best[question_id][1],
        }
        for question_id in grams
    ]
    return Contamination(
        questions=len(rows),
        texts=num_texts,
        gram_words=GRAM,
        contaminated=[
            row
            for row in rows
            if row["overlap"] > max_overlap or row["similarity"] > max_similarity
        ],
        per_question=[
            QuestionOverlap(
                question_id=row["question_id"], overlap=row["overlap"], similarity=row["similarity"]
            )
            for row in rows
        ],
    )


def _grams(spoken: Sequence[str], size: int) -> set[str]:
    size = min(size, len(spoken))
    return {f" {' '.join(spoken[i : i + size])} " for i in range(len(spoken) - size + 1)}


def _automaton(
    asked: dict[str, list[str]],
) -> tuple[ahocorasick.Automaton, dict[str, set[str]]]:
    """Finds all grams and anchors of all questions in one pass over a text."""
    grams = {question_id: _grams(spoken, GRAM) for question_id, spoken in asked.items()}
    owners: dict[str, set[str]] = {}
    for question_id, spoken in asked.items():
        for gram in grams[question_id] | _grams(spoken, ANCHOR):
            owners.setdefault(gram, set()).add(question_id)
    automaton = ahocorasick.Automaton()
    for gram, mine in owners.items():
        automaton.add_word(gram, (gram, mine))
    automaton.make_automaton()
    return automaton, grams


def jaccard(first: Sequence[str], second: Sequence[str]) -> float:
    """The share of their different words that two texts have in common; 0 for two empty ones."""
    ours, theirs = set(first), set(second)
    return len(ours & theirs) / max(1, len(ours | theirs))


def training_texts(data: str, tokenizer: str | None) -> Iterator[str]:
    """What people asked, in a clean folder or a pack."""
    if storage.exists(storage.join(data, PACK_NAME)):
        if tokenizer is None:
            raise InputError(f"{data} is a pack, which holds token ids; give its --tokenizer")
        return _pack_texts(data, tokenizer)
    shards = [name for name in storage.list_dir(data) if name.endswith(".parquet")]
    if not shards:
        raise NotFoundError(f"{data} holds neither clean conversations (*.parquet) nor a pack")
    return _clean_texts(data, shards)


def _clean_texts(data: str, shards: Sequence[str]) -> Iterator[str]:
    for name in shards:
        with storage.open_file(storage.join(data, name)) as handle:
            table = pq.ParquetFile(handle)
            for batch in table.iter_batches(BATCH_ROWS, columns=["messages"]):
                for messages in batch.column(0).to_pylist():
                    yield from (m["content"] for m in messages if m["role"] == "user")


def _pack_texts(data: str, tokenizer: str) -> Iterator[str]:
    """What a pack does not train on, which is what people asked; the template's words around it."""
    from apps.common.files.model_folder import text_folder
    from apps.common.text.tokenizer import load_tokenizer

    loaded, pack = load_tokenizer(text_folder(tokenizer)), open_pack(data)
    if loaded.digest != pack.info.tokenizer_digest:
        raise InputError(
            f"{data} was not made with the tokenizer of {tokenizer}; give the one that "
            "`apps.data pack --tokenizer` was given"
        )
    for name in SPLITS:
        split = pack.split(name)
        for start in range(0, len(split), BATCH_ROWS):
            rows = split.rows(range(start, min(start + BATCH_ROWS, len(split))))
            for ids in _asked(rows):
                yield loaded.backend.decode(ids, skip_special_tokens=True)


def _asked(rows: Rows) -> Iterator[list[int]]:
    """Runs of ids outside the loss mask, conversation by conversation."""
    for ids, mask, lengths in zip(*rows, strict=True):
        ends = np.cumsum(lengths)
        # A run ends where the mask changes or a conversation ends.
        cuts = {0, *ends.tolist(), *(np.flatnonzero(np.diff(mask[: ends[-1]])) + 1).tolist()}
        for start, end in pairwise(sorted(cuts)):
            if not mask[start]:
                yield ids[start:end].tolist()
