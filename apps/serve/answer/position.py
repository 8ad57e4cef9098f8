"""How far a client has come in a stream: the `id` of its events, which it sends back as
`Last-Event-ID` when it has lost the connection (https://html.spec.whatwg.org, server-sent events).

`chatcmpl-6579...:41` is the event after 41 tokens. A delta may make several events: those before
its last are `41+1`, `41+2`. With several choices there is one such count for each: `41.38+1`. The
usage is `41.38!`. Tokens are counted, not events, because another replica may cut them into
other steps; what text they make does not depend on that.
"""

import re
from dataclasses import dataclass

from apps.serve.errors import ApiError

_PLACE = r"\d{1,9}(?:\+\d{1,9})?"
_EVENT_ID = re.compile(rf"((?:chatcmpl|cmpl)-[0-9a-f]{{32}}):({_PLACE}(?:\.{_PLACE})*)(!?)")
_MAX_CHARS = 8192


@dataclass(slots=True)
class Place:
    """In one choice."""

    tokens: int = 0
    """whose events have all come"""
    events: int = 0
    """of the delta after these"""

    def __str__(self) -> str:
        return f"{self.tokens}+{self.events}" if self.events else str(self.tokens)


@dataclass(frozen=True, slots=True)
class Position:
    stream: str
    places: tuple[Place, ...]
    is_end: bool = False
    """Even the usage has come."""

    @classmethod
    def read(cls, header: str | None) -> "Position | None":
        """Raises ApiError 400 for what is no event id of ours."""
        if not header:
            return None
        match = _EVENT_ID.fullmatch(header) if len(header) <= _MAX_CHARS else None
        if match is None:
            raise ApiError(400, f"The Last-Event-ID {header[:64]!r} is not one of a stream here.")
        places = []
        for text in match[2].split("."):
            tokens, _, events = text.partition("+")
            places.append(Place(int(tokens), int(events or 0)))
        return cls(match[1], tuple(places), bool(match[3]))

    def __str__(self) -> str:
        return f"{self.stream}:{'.'.join(map(str, self.places))}{'!' if self.is_end else ''}"


class Cursor:
    """Numbers the events that are sent, and leaves out those that a client has."""

    def __init__(self, stream: str, num_choices: int, after: Position | None) -> None:
        self._position = Position(stream, tuple(Place() for _ in range(num_choices)))
        self._after = after.places if after is not None else (Place(),) * num_choices
        self._has_end = after is not None and after.is_end

    def new(self, choice: int, num_tokens: int, num_events: int) -> list[tuple[str, int]]:
        """For each event of the next delta that is new: its id, and which of the delta's it is.

        A client that has `2+1` of a delta with the tokens 3 and 4 and three events gets the second,
        `2+2`, and the third, `4`.
        """
        place, after = self._position.places[choice], self._after[choice]
        begin, end, base = place.tokens, place.tokens + num_tokens, place.events
        made: list[tuple[str, int]] = []
        for event in range(num_events):
            is_last = event == num_events - 1 and num_tokens > 0
            place.tokens, place.events = (end, 0) if is_last else (begin, base + event + 1)
            if (place.tokens, place.events) > (after.tokens, after.events):
                made.append((str(self._position), event))
        if num_tokens:
            place.tokens, place.events = end, 0
        return made

    def end(self) -> str | None:
        """The id of the usage, if it is new."""
        return None if self._has_end else f"{self._position}!"
