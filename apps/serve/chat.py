"""Talk to a served model in the terminal.

    python -m apps.serve chat http://127.0.0.1:8000 --model vicuna
    python -m apps.serve chat https://chat.example.org --key-env MY_KEY < question.txt

Each line is a question. The answer is written as it comes, and goes on when a gateway is lost.
Where the input is no terminal, all of it is one question. Any server with OpenAI's API will do.
"""

import contextlib
import sys
from collections.abc import Generator, Mapping
from dataclasses import dataclass

import httpx
from tyro.conf import Positional

from apps.common.command.events import Reporter
from apps.common.errors import ConfigError, CriaError, InputError
from apps.common.files.config import at_least
from apps.common.files.endpoints import read_key
from apps.serve.client import Client, StreamError
from apps.serve.join import find_model

_TIMEOUT_S = 10.0
_NEW = "/new"
_HELP = f"{_NEW} begins anew, Ctrl-C ends an answer, Ctrl-D the chat."
_CONTROLS = dict.fromkeys({*range(32), *range(127, 160)} - {ord("\n"), ord("\t")})
"""A terminal obeys some of these, whoever wrote them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatConfig:
    """Ask a model, line by line."""

    url: Positional[str]
    """address of the gateway, or of any OpenAI API, such as http://127.0.0.1:8000"""
    model: str = ""
    """the model's name there (default: its only one)"""
    system: str = ""
    """system message"""
    temperature: float | None = None
    """0 always takes the likeliest token (default: the model's own)"""
    max_tokens: int | None = None
    """longest answer, in tokens"""
    key_env: str = ""
    """environment variable with the key, where keys are set"""

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"url is {self.url!r}; it must begin with http:// or https://.")
        at_least(0, self, "", "temperature", "max_tokens")
        _check_is_text(self.system, "--system")


def chat(settings: ChatConfig, reporter: Reporter) -> None:
    key = read_key(settings.key_env) or ""
    if settings.key_env and not key:
        raise ConfigError(f"--key-env names {settings.key_env}, which is not set; put a key there.")
    url = f"{settings.url.rstrip('/').removesuffix('/v1')}/v1"
    with httpx.Client(timeout=_TIMEOUT_S) as http:
        model = find_model(http, url, key, settings.model, "check the address and --key-env")
    sys.stdout.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]
    with Client([url], api_key=key) as client:
        talk = _Talk(client, model, settings)
        if sys.stdin.isatty():
            print(f"{model} at {url}. {_HELP}")
            _by_lines(talk)
        elif question := sys.stdin.read().strip():
            _show(talk.answer(question))
        else:
            raise InputError("There is no question; write one to standard input.")


def _check_is_text(text: str, what: str) -> None:
    """Python reads bytes that are no UTF-8 as halves of surrogate pairs. Raises InputError."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{what} is no UTF-8 text; convert it, such as with `iconv -f latin1 -t utf-8`."
        ) from None


def _by_lines(talk: "_Talk") -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # for `input`: arrows, and what was typed before
    while True:
        try:
            question = input("\n> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if question == _NEW:
            talk.begin()
        elif question:
            try:
                _show(talk.answer(question))
            except CriaError as error:
                print(f"({error.sentence})")
            except KeyboardInterrupt:
                print("\n(stopped)")


def _show(pieces: Generator[str]) -> None:
    with contextlib.closing(pieces):
        for piece in pieces:
            sys.stdout.write(piece.translate(_CONTROLS))
            sys.stdout.flush()
    print()


class _Talk:
    """One conversation."""

    def __init__(self, client: Client, model: str, settings: ChatConfig) -> None:
        self._client, self._settings = client, settings
        given = {"temperature": settings.temperature, "max_tokens": settings.max_tokens}
        set_ones = {name: value for name, value in given.items() if value is not None}
        self._body: Mapping[str, object] = {"model": model, **set_ones}
        self._messages: list[dict[str, str]] = []
        self.begin()

    def begin(self) -> None:
        system = self._settings.system
        self._messages = [{"role": "system", "content": system}] if system else []

    def answer(self, question: str) -> Generator[str]:
        """Piece by piece. What came of one that was left early is kept; a question without any
        answer is not. Raises CriaError."""
        _check_is_text(question, "The question")
        asked = [*self._messages, {"role": "user", "content": question}]
        said, reason = "", ""
        chunks = self._client.stream("chat/completions", {**self._body, "messages": asked})
        try:
            with contextlib.closing(chunks):
                for chunk in chunks:
                    for choice in chunk.get("choices") or ():
                        reason = choice.get("finish_reason") or reason
                        if piece := (choice.get("delta") or {}).get("content"):
                            said += piece
                            yield piece
        except StreamError as error:
            raise CriaError(str(error)) from error
        finally:
            if said:
                self._messages = [*asked, {"role": "assistant", "content": said}]
        if reason == "length":
            yield " (cut off: that is as long as an answer may be)"
