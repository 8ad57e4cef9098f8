"""What an answer from a server elsewhere used: as that server tells, estimated as long as it does
not. A client that leaves early never hears it, and some servers never tell.
"""

from collections.abc import Iterable, Mapping, Sequence

from apps.serve.answer.choices import Usage
from apps.serve.gateway.estimate import (
    echoed_bytes,
    prompt_estimate,
    said_in,
    size_bytes,
    tokens_of_bytes,
)


class Tally:
    """`usage` is right at any time, so that nothing has to be done when the request ends."""

    def __init__(self, request: Mapping[str, object]) -> None:
        """Before anything has come, the prompt is taken as read."""
        self.usage = Usage(prompt_estimate(request))
        self._is_told = False
        self._num_pieces = 0
        self._num_bytes = -echoed_bytes(request)

    def take(self, body: Mapping[str, object]) -> int:
        """An answer, or a chunk of one; how many of its pieces say something. Each of these has a
        token at least."""
        told = told_usage(body)
        if told is not None:
            self._is_told = True
            self.usage.prompt_tokens = told.prompt_tokens
            self.usage.completion_tokens = told.completion_tokens
        said = [text for choice in choices_of(body) if (text := said_in(choice))]
        self._num_pieces += len(said)
        self._num_bytes += sum(map(size_bytes, said))
        if not self._is_told:
            self.usage.completion_tokens = max(self._num_pieces, tokens_of_bytes(self._num_bytes))
        return len(said)

    def take_all(self, chunks: Iterable[Mapping[str, object]]) -> None:
        for chunk in chunks:
            self.take(chunk)

    def nothing(self) -> None:
        """The server did not take the request."""
        self.usage.prompt_tokens = self.usage.completion_tokens = 0


def told_usage(body: Mapping[str, object]) -> Usage | None:
    """None where it tells none, or none that can be."""
    found = body.get("usage")
    if not isinstance(found, dict):
        return None
    prompt, completion = found.get("prompt_tokens"), found.get("completion_tokens", 0)
    if type(prompt) is not int or type(completion) is not int or prompt < 1 or completion < 0:
        return None
    usage = Usage(prompt)
    usage.completion_tokens = completion
    return usage


def choices_of(body: Mapping[str, object]) -> Sequence[dict[str, object]]:
    found = body.get("choices")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
