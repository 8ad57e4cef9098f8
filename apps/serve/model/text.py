"""From token ids to text, as they come: detokenizing, stop strings, the bytes of one token.

Streamed and whole answers go through the same code, so they are equal by construction, and neither
depends on how the tokens were cut into steps.
"""

import json
from collections.abc import Sequence

import tokenizers

from apps.common.text.token_edges import bytes_of_byte_level

MAX_HELD_TOKENS = 8
"""A character is at most 4 bytes; longer runs that do not decode are garbage and let through."""
_REPLACEMENT = "\ufffd"


class TextStream:
    """Text of one answer. `stopped` turns true when a stop string was met.

    `context` are the tokens before it (see TokenBytes.last_text). `skip` is left out where the
    answer begins with it, before stop strings are looked for.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        stop: Sequence[str] = (),
        include_stop: bool = False,
        skip: str = "",
        context: Sequence[int] = (),
    ) -> None:
        self._detokenizer = Detokenizer(backend, context)
        self._skip = skip
        self.num_tokens = 0
        """Of those pushed, as many as it took to the end of the text."""
        self.starts: list[int] = []
        """of these tokens, the chars before each; those of one character, and of what comes out
        together with it, have one place"""
        self.num_chars = 0
        """given out"""
        self._num_read = 0
        self._matcher = StopMatcher(stop, include_stop)

    @property
    def stopped(self) -> bool:
        return self._matcher.stopped

    def push(self, token_ids: Sequence[int], final: bool = False) -> str:
        """Text that is certain by now; nothing after a stop string."""
        pieces: list[str] = []
        for token_id in token_ids:
            if self.stopped:
                break
            self.starts.append(self._num_read)
            pieces.append(self._match(self._detokenizer.push(token_id)))
            self.num_tokens += 1
        if final:
            pieces += [self._match(self._detokenizer.flush()), self._matcher.flush()]
        self.num_chars += sum(map(len, pieces))
        return "".join(pieces)

    def _match(self, text: str) -> str:
        while self._skip and text.startswith(self._skip[0]):
            text, self._skip = text[1:], self._skip[1:]
        if text:
            self._skip = ""
        self._num_read += len(text)
        return self._matcher.push(text)


class Detokenizer:
    """Text of a growing token list; special tokens have none.

    The new text is the difference of two decodings that begin at the previous piece, because a
    token's text depends on its neighbours (SentencePiece drops the first space of a text, and byte
    tokens make a character together). While the end is an unfinished character, nothing comes out.
    """

    def __init__(self, backend: tokenizers.Tokenizer, context: Sequence[int] = ()) -> None:
        self._backend = backend
        self._context = list(context)
        self._pending: list[int] = []

    def push(self, token_id: int) -> str:
        self._pending.append(token_id)
        text = self._pending_text()
        if text.endswith(_REPLACEMENT) and len(self._pending) < MAX_HELD_TOKENS:
            return ""
        return self._emit(text)

    def flush(self) -> str:
        """What is left at the end; an unfinished character becomes U+FFFD."""
        return self._emit(self._pending_text())

    def _pending_text(self) -> str:
        before = self._backend.decode(self._context)
        both = self._backend.decode(self._context + self._pending)
        if both.startswith(before):
            return both[len(before) :]
        # Only byte tokens that spoil the character before them; on their own they are U+FFFD.
        return self._backend.decode(self._pending)

    def _emit(self, text: str) -> str:
        if text:
            self._context, self._pending = self._pending, []
        return text


class StopMatcher:
    """Finds the stop string that ends first, holding back what may become one."""

    def __init__(self, stop: Sequence[str], include_stop: bool = False) -> None:
        self._stop = tuple(s for s in stop if s)
        self._include = include_stop
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        if self.stopped or not text:
            return ""
        text, self._held = self._held + text, ""
        if not self._stop:
            return text
        # As if read letter by letter: the match with the earliest end, then the longest.
        found = [(text.find(s) + len(s), -len(s)) for s in self._stop if s in text]
        if found:
            self.stopped = True
            end, minus_length = min(found)
            return text[: end if self._include else end + minus_length]
        safe = len(text) - self._num_held(text)
        self._held = text[safe:]
        return text[:safe]

    def flush(self) -> str:
        """The end came: what was held back was no stop string."""
        text, self._held = self._held, ""
        return text

    def _num_held(self, text: str) -> int:
        """Longest end of the text that begins a stop string."""
        longest = min(len(text), max(map(len, self._stop)) - 1)
        for size in range(longest, 0, -1):
            if any(s.startswith(text[-size:]) for s in self._stop if len(s) > size):
                return size
        return 0


class TokenBytes:
    """Single tokens, for `logprobs`: `token_bytes(id)`, `token_text(id)`, `token_name(id)`."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend
        decoder = json.loads(backend.to_str())["decoder"]
        self._is_byte_level = '"ByteLevel"' in json.dumps(decoder)
        added = backend.get_added_tokens_decoder()
        self._special = {i: token.content.encode() for i, token in added.items()}
        self._hidden = {i for i, token in added.items() if token.special}

    def token_bytes(self, token_id: int) -> bytes:
        if token_id in self._special:
            return self._special[token_id]
        token = self._backend.id_to_token(token_id)
        if token is None:
            return b""
        if self._is_byte_level:
            return bytes(bytes_of_byte_level().get(c, 0x3F) for c in token)
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes([int(token[3:5], 16)])
        return token.replace("\u2581", " ").encode()

    def token_text(self, token_id: int) -> str:
        return self.token_bytes(token_id).decode("utf-8", errors="replace")

    def last_text(self, token_ids: Sequence[int]) -> Sequence[int]:
        """The last few tokens, of those after the last special one: text begins anew behind it."""
        start = len(token_ids)
        least = max(0, start - MAX_HELD_TOKENS)
        while start > least and token_ids[start - 1] not in self._hidden:
            start -= 1
        return token_ids[start:]

    def starts(self, token_ids: Sequence[int], text: str) -> list[int]:
        """Where in their text each token begins, as TextStream.starts.

        The text leaves out special tokens, and may have lost the space that it begins with:

            tokens "<s>" "_the" "_" "<c3>" "<a9>" of "the é" begin at 0, 0, 3, 4, 4
        """
        starts: list[int] = []
        num_chars, spelled = 0, bytearray()
        for token_id in token_ids:
            raw = b"" if token_id in self._hidden else self.token_bytes(token_id)
            starts.append(num_chars - any(map(_is_inside, raw[:1])))
            num_chars += sum(not _is_inside(byte) for byte in raw)
            spelled += raw
        lost = int(spelled[:1] == b" " and not text.startswith(" "))
        return [min(max(0, start - lost), len(text)) for start in starts]

    def token_name(self, token_id: int) -> str:
        """The text, or as OpenAI's completions write bytes that are none: `bytes:\\xe2\\x80`."""
        raw = self.token_bytes(token_id)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def _is_inside(byte: int) -> bool:
    """Whether it is none of a character's first (UTF-8, RFC 3629: the others are 10xxxxxx)."""
    return byte & 0xC0 == 0x80
