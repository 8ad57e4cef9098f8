"""The texts under the figures, cut so that a page of any size opens at once.

Up to `INLINE_BYTES` of texts lie in report.html itself: one file to keep and mail. Beyond that they
lie in report-texts/<digest>/ beside it, as part-<k>.js of about a megabyte each and as
words-<k>.js, the index that the search reads. They are scripts, because a page that is opened from
disk may load no JSON. Each is one call, `part(k, [...])` or `words(k, {...})`. The page itself
holds a glance of every question.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

from apps.common.text.words import words
from apps.eval.figures.as_json import to_json
from apps.eval.page.evidence import Evidence, ShownAnswer, ShownJudgment, ShownQuestion

INLINE_BYTES = 4_000_000
PART_BYTES = 1_000_000
NUM_INDEX_FILES = 8
ASK_CHARS = 160


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownTexts:
    """Everything that opens with one question."""

    question: ShownQuestion
    answers: Mapping[str, ShownAnswer]
    judgments: tuple[ShownJudgment, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Glance:
    """What the list shows of a question before it is opened."""

    id: str
    category: str
    ask: str
    part: int
    won: tuple[int, ...]
    """judgments that each model won, in the order of the models, and ties last"""
    leaders: tuple[int, ...]
    """places of the models that won the largest share; none where all are level"""
    kinds: tuple[str, ...]
    """split, unread, flagged, wrong"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Texts:
    models: tuple[str, ...]
    turns: int
    glances: tuple[Glance, ...]
    parts: tuple[bytes, ...]
    """JSON arrays of `ShownTexts`"""
    index: tuple[bytes, ...]
    """JSON objects {word: places of the questions with it}; empty where parts are inline"""

    @property
    def is_inline(self) -> bool:
        return not self.index

    def files(self) -> Iterator[tuple[str, bytes]]:
        """(name, content) of what lies beside the page."""
        if self.is_inline:
            return
        for place, part in enumerate(self.parts):
            yield f"part-{place}.js", b"part(%d,%s)" % (place, part)
        for place, some in enumerate(self.index):
            yield f"words-{place}.js", b"words(%d,%s)" % (place, some)

    def digest(self) -> str:
        """Of the files, for their folder: a page never shows those of an older or newer one."""
        return hashlib.blake2b(b"".join(self.parts), digest_size=6).hexdigest()


def cut(under: Evidence) -> Texts:
    by_question: dict[str, list[ShownJudgment]] = defaultdict(list)
    for item in under.judgments:
        by_question[item.q].append(item)
    shown = [
        ShownTexts(
            question=question,
            answers={
                name: made[question.id]
                for name, made in under.answers.items()
                if question.id in made
            },
            judgments=tuple(by_question[question.id]),
        )
        for question in under.questions
    ]
    encoded = [orjson.dumps(to_json(texts)) for texts in shown]
    is_inline = sum(map(len, encoded)) <= INLINE_BYTES
    places = [0] * len(encoded) if is_inline else _places(list(map(len, encoded)))
    parts: dict[int, list[bytes]] = defaultdict(list)
    for place, one in zip(places, encoded, strict=True):
        parts[place].append(one)
    return Texts(
        models=under.models,
        turns=under.turns,
        glances=tuple(
            _glance(one, part, under.models) for one, part in zip(shown, places, strict=True)
        ),
        parts=tuple(b"[" + b",".join(some) + b"]" for some in parts.values()),
        index=() if is_inline else _index(shown),
    )


def _places(sizes: Sequence[int]) -> list[int]:
    """The part of each question: about `PART_BYTES` together, in order.

    Sizes 400, 500, 300 and 900 KB begin at 0, 400, 900 and 1,200 KB: parts 0, 0, 0 and 1.
    """
    places: list[int] = []
    total = 0
    for size in sizes:
        places.append(total // PART_BYTES)
        total += size
    names = {place: number for number, place in enumerate(dict.fromkeys(places))}
    return [names[place] for place in places]


def _index(shown: Sequence[ShownTexts]) -> tuple[bytes, ...]:
    """Places as gaps, so that they stay short: a word in questions 3, 4 and 9 has [3, 1, 5]."""
    places_of_word: dict[str, list[int]] = defaultdict(list)
    for place, texts in enumerate(shown):
        for word in set(words(" ".join(_all_texts(texts)))):
            places_of_word[word].append(place)
    files: list[dict[str, list[int]]] = [{} for _ in range(NUM_INDEX_FILES)]
    for number, (word, places) in enumerate(sorted(places_of_word.items())):
        gaps = [b - a for a, b in zip([0, *places], places, strict=False)]
        files[number % NUM_INDEX_FILES][word] = gaps
    return tuple(map(orjson.dumps, files))


def _all_texts(texts: ShownTexts) -> Iterator[str]:
    yield texts.question.id
    yield from texts.question.turns
    for answer in texts.answers.values():
        yield from answer.turns
    for item in texts.judgments:
        yield item.text


def _glance(texts: ShownTexts, part: int, models: Sequence[str]) -> Glance:
    won = Counter(_winner(item) for item in texts.judgments if item.lead is not None)
    kinds = {
        "split": _is_split(texts.judgments),
        "unread": any(item.status != "ok" for item in texts.judgments),
        "flagged": any(answer.flags for answer in texts.answers.values()),
        "wrong": any(answer.correct is False for answer in texts.answers.values()),
    }
    return Glance(
        id=texts.question.id,
        category=texts.question.category,
        ask=texts.question.turns[0][:ASK_CHARS],
        part=part,
        won=tuple(won[name] for name in (*models, "")),
        leaders=tuple(models.index(name) for name in _leaders(texts.judgments)),
        kinds=tuple(name for name, is_so in kinds.items() if is_so),
    )


def _winner(item: ShownJudgment) -> str:
    """Empty for a tie."""
    if not item.lead:
        return ""
    return item.models[0 if item.lead > 0 else 1]


def _is_split(judgments: Sequence[ShownJudgment]) -> bool:
    """Whether some judge said another thing when the answers changed places."""
    seen: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for item in judgments:
        if item.lead is not None:
            seen[item.protocol, item.judge, item.repeat, item.turn, item.models].add(_winner(item))
    return any(len(winners) > 1 for winners in seen.values())


def _leaders(judgments: Sequence[ShownJudgment]) -> list[str]:
    """The models that won most, or where none met were scored best; none if all are level."""
    points: dict[str, list[float]] = defaultdict(list)
    scores: dict[str, list[float]] = defaultdict(list)
    for item in judgments:
        if item.lead is not None:
            winner = _winner(item)
            for name in item.models:
                points[name].append(0.5 if not winner else float(name == winner))
        elif item.scores and len(item.models) == 1:
            scores[item.models[0]].append(item.scores[0])
    points = points or scores  # wins and scores add up to nothing
    shares = {name: sum(mine) / len(mine) for name, mine in points.items()}
    best = max(shares.values(), default=0.0)
    leaders = [name for name, share in shares.items() if share == best]
    return leaders if len(leaders) < len(shares) else []
