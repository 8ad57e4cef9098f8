"""Where did this come from? Passages of a model's training data that share words with an answer.

Only where `page.sources` names an index of `python -m apps.data index`: training data may hold what
nobody should read. Of a battle that is still blind nothing is told, for the data name the model.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from apps.common.errors import ConfigError, CriaError
from apps.common.files import lineage
from apps.common.passages import SharedPassage, open_passages
from apps.common.text.shared_runs import MIN_RUN
from apps.common.text.words import words
from apps.serve.page.answers.moderation import Moderator, UnreadError
from apps.serve.page.config import PageConfig
from apps.serve.page.store import conversations as talks
from apps.serve.page.store import limits
from apps.serve.page.store.conversations import Asker
from apps.serve.page.store.database import Database
from apps.serve.page.store.refusal import Refusal
from apps.serve.page.store.tables import Battle, Conversation, Turn

logger = logging.getLogger("ray.serve")

_AROUND_CHARS, _MAX_RUN_CHARS = 180, 1_000
"""of a passage: on each side of its longest run, and of the run"""
_BLIND = "Vote first: where an answer came from would name its model."
_NO_ANSWER = "There is no answer here yet."
_NO_INDEX = "The training data of this model cannot be searched here."
_BROKEN = "The training data cannot be searched right now. Try again in a moment."
_UNREAD = "Passages cannot be checked right now, so none is shown. Try again in a moment."


@dataclass(frozen=True, kw_only=True, slots=True)
class Excerpt:
    """What the page shows of a passage."""

    conversation: str
    turn: int
    role: str
    num_words: int
    """of the longest run that it shares with the answer"""
    pieces: tuple[tuple[str, bool], ...]
    """its text in order; true: the answer has this run too"""

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.pieces)


class Sources:
    """Look-ups, one at a time in each process, so that they take no answer's time."""

    def __init__(self, page: PageConfig, database: Database, moderator: Moderator) -> None:
        self._page, self._database, self._moderator = page, database, moderator
        self._lock = asyncio.Lock()

    async def look(self, asker: Asker, turn: str) -> dict[str, object]:
        """The passages with the longest shared runs. Raises Refusal."""
        file, answer = await asyncio.to_thread(self._answer, asker, turn)
        try:
            async with self._lock:
                shared = await asyncio.to_thread(_search, file, answer)
        except (CriaError, OSError) as error:
            logger.exception("%s could not be searched", file)
            raise Refusal(_BROKEN) from error
        shown = [excerpt for one in shared if await self._may_show(excerpt := _excerpt(one))]
        return {
            "min_words": MIN_RUN,
            "is_short": len(words(answer)) < MIN_RUN,
            "passages": [asdict(excerpt) for excerpt in shown],
            "num_withheld": len(shared) - len(shown),
        }

    async def _may_show(self, excerpt: Excerpt) -> bool:
        try:
            return not await self._moderator.reason(excerpt.text)
        except UnreadError as error:
            raise Refusal(_UNREAD) from error

    def _answer(self, asker: Asker, turn_id: str) -> tuple[str, str]:
        """The index of the model's training data, and the answer; counted as a request."""
        with self._database.write() as session:
            talks.known_visitor(session, asker.visitor_id)
            turn = session.get(Turn, turn_id)
            if turn is None or turn.visitor_id != asker.visitor_id:
                raise Refusal(talks.GONE)
            conversation = session.get_one(Conversation, turn.conversation_id)
            if conversation.battle_id is not None:
                battle = session.get_one(Battle, conversation.battle_id)
                if battle.blind and not talks.has_vote(session, battle.id):
                    raise Refusal(_BLIND)
            if turn.status not in talks.ANSWERED or not turn.answer.strip():
                raise Refusal(_NO_ANSWER)
            if conversation.model not in self._page.sources:
                raise Refusal(_NO_INDEX)
            limits.count_lookup(session, asker, self._page.limits)
            return self._page.sources[conversation.model], turn.answer


def _search(file: str, answer: str) -> list[SharedPassage]:
    return open_passages(file).sharing(answer)


def check_sources(sources: Mapping[str, str], paths: Mapping[str, str]) -> None:
    """That every index can be read and is that of its model's data; `paths` are of model folders.

    Raises ConfigError, NotFoundError or CorruptError.
    """
    for model, file in sources.items():
        if model not in paths:
            raise ConfigError(
                f"page.sources names {model!r}, which is no model here; expected one of "
                f"{', '.join(paths)}."
            )
        indexed, trained_on = open_passages(file).made_of, _pack_of(paths[model])
        if indexed and trained_on and indexed != trained_on:
            raise ConfigError(
                f"page.sources.{model}: {file} was made of the pack {indexed}, but {model} was "
                f"trained on {trained_on}; index that one with `python -m apps.data index`."
            )


def _pack_of(path: str) -> str:
    """Digest of the pack that a model was trained on; "" where its folder does not tell."""
    try:
        inputs = lineage.read(path)["inputs"] if path else None
    except (CriaError, OSError, ValueError, KeyError):
        return ""
    match inputs:
        case {"data": str() as digest}:
            return digest
        case _:
            return ""


def _excerpt(shared: SharedPassage) -> Excerpt:
    """The longest run with what stands around it, and every shared run therein."""
    passage, (start, end) = shared.passage, shared.longest
    first = max(0, start - _AROUND_CHARS)
    last = min(len(passage.text), min(end, start + _MAX_RUN_CHARS) + _AROUND_CHARS)
    pieces: list[tuple[str, bool]] = [("…", False)] if first else []
    at = first
    for begin, stop in shared.runs:
        begin, stop = max(begin, first), min(stop, last)
        if begin < stop:
            pieces += [(passage.text[at:begin], False), (passage.text[begin:stop], True)]
            at = stop
    pieces += [(passage.text[at:last], False), ("…" if last < len(passage.text) else "", False)]
    return Excerpt(
        conversation=passage.conversation,
        turn=passage.turn,
        role=passage.role,
        num_words=shared.num_words,
        pieces=tuple(piece for piece in pieces if piece[0]),
    )
