"""What stands in front of the page: every request passes here, and every response.

Of Gradio's ninety or so routes a visitor reaches one, an action of ours, with one string for an
argument. The reason is measured: an API function of Gradio 6.31 that returns what it was given
copies any file of this host into Gradio's public cache when it is given
`{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}`.
"""

import asyncio
import json
import re
from collections.abc import Collection, Coroutine, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps.serve.admission.peer import peer
from apps.serve.page.config import PageConfig
from apps.serve.page.store.refusal import Refusal
from apps.serve.page.web.headers import security_headers
from apps.serve.page.web.login import Door
from apps.serve.page.web.visitors import Visitors

ACTION = "/gradio_api/run/"
ASKER = "cria.asker"
_GET = re.compile(
    r"/|/(?:events|leaderboard\.json|style\.json|evaluation\.json|question\.json|favicon\.ico|robots\.txt)"
    r"|/static/[0-9a-f]{16}/[a-z_-]+\.(?:js|css|svg)"
    r"|/s/[A-Za-z0-9_-]{43}(?:\.json)?|/download/[0-9a-f]{32}\.(?:json|md)"
)
_OPEN = re.compile(r"/|/s/[A-Za-z0-9_-]{43}|/static/.*|/favicon\.ico|/robots\.txt")
"""what a visitor gets before logging in: the page itself, which then asks for the password"""
_WRONG_PASSWORD_S = 1.0
_BODY_TIMEOUT_S = 30.0
"""as GatewayConfig.body_timeout_s"""
_PAGE = re.compile(r"/|/s/[A-Za-z0-9_-]{43}")
_FORWARDED_FOR = b"x-forwarded-for"
FAILED = "The page failed. Try again in a moment."
_BYTES_PER_CHAR = 12
"""of a character outside the BMP in JSON"""


class _BodyError(Exception):
    """The body is none that this page takes."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Guard:
    """ASGI middleware around the whole page."""

    def __init__(
        self,
        app: ASGIApp,
        page: PageConfig,
        visitors: Visitors,
        door: Door,
        actions: Collection[str],
    ) -> None:
        self._app, self._visitors, self._door = app, visitors, door
        self._actions = frozenset(ACTION + name for name in actions)
        self._headers = security_headers(page)
        origin = urlsplit(page.origin)
        self._default_port = {"http": ":80", "https": ":443"}.get(origin.scheme, "")
        self._host = self._named(origin.netloc)
        self._max_body_bytes = 65_536 + _BYTES_PER_CHAR * page.max_input_chars

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = _headers(scope)
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        connected = peer(scope)
        asker = self._visitors.asker(headers, connected)
        scope[ASKER] = asker
        cookie = self._visitors.new_cookie() if asker is None and _PAGE.fullmatch(path) else b""
        answer = self._with_headers(send, cookie)
        if not scope["path"].removeprefix(scope.get("root_path", "")):
            await _redirect(answer, scope["path"].rsplit("/", 1)[-1] + "/")
        elif not self._is_our_host(headers):
            await _refuse(answer, 421, "This page is not reached by that name.")
        elif scope["method"] == "POST" and path == "/login":
            await _or_refused(self._log_in(headers, connected, receive, answer), answer)
        elif not _OPEN.fullmatch(path) and not self._door.is_open_for(
            headers, self._visitors.is_proxy(connected)
        ):
            await _refuse(answer, 401, "Log in first.")
        elif scope["method"] == "GET" and _GET.fullmatch(path):
            await self._app(scope, receive, answer)
        elif scope["method"] == "HEAD" and _GET.fullmatch(path) and path != "/events":
            # Link previews and monitors ask so; the server that sends the answer drops its body.
            await self._app({**scope, "method": "GET"}, receive, answer)
        elif scope["method"] == "POST" and path in self._actions:
            await _or_refused(self._act(scope, headers, receive, answer), answer)
        else:
            await _refuse(answer, 404, "There is nothing here.")

    async def _log_in(
        self, headers: Mapping[bytes, bytes], connected: str, receive: Receive, answer: Send
    ) -> None:
        body = await self._body(receive) if self._is_same_origin(headers) else b""
        cookie = ""
        if body:
            network = self._visitors.network(headers, connected)
            try:
                cookie = await self._door.opened_by(body.decode("utf-8", "replace"), network)
            except Refusal as refusal:
                await _refuse(answer, 429, str(refusal), refusal.retry_after_s)
                return
        if cookie:
            await _send(answer, 200, b"{}", [(b"set-cookie", cookie.encode())])
            return
        await asyncio.sleep(_WRONG_PASSWORD_S)
        await _refuse(answer, 403, "That is not the password.")

    async def _act(
        self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, answer: Send
    ) -> None:
        if not self._is_same_origin(headers):
            await _refuse(answer, 403, "Another site may not act for a visitor of this page.")
            return
        if scope[ASKER] is None:
            await _refuse(answer, 403, "Your browser sent no cookie of this page. Reload it.")
            return
        body = await self._body(receive)
        if not _is_one_string(body):
            await _refuse(answer, 400, "An action takes one JSON text in data.")
            return
        await self._app(scope, _replay(body), _hiding_errors(answer))

    async def _body(self, receive: Receive) -> bytes:
        """Raises _BodyError where it stalls, and as soon as it is longer than the longest
        question."""
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_S):
                return await self._whole(receive)
        except TimeoutError:
            raise _BodyError(408, "Your question did not come whole. Send it again.") from None

    async def _whole(self, receive: Receive) -> bytes:
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _BodyError(400, "The connection closed before all had come.")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._max_body_bytes:
                raise _BodyError(413, "That is longer than this page takes.")
            if not message.get("more_body"):
                return b"".join(parts)

    def _is_our_host(self, headers: Mapping[bytes, bytes]) -> bool:
        return (
            not self._host or self._named(headers.get(b"host", b"").decode("latin-1")) == self._host
        )

    def _named(self, host: str) -> str:
        """As browsers name it: in small letters, without the port that goes without saying."""
        return host.lower().removesuffix(self._default_port)

    def _is_same_origin(self, headers: Mapping[bytes, bytes]) -> bool:
        """Browsers say where a request comes from; scripts of other sites cannot change it."""
        if headers.get(b"sec-fetch-site", b"same-origin") != b"same-origin":
            return False
        if not headers.get(b"content-type", b"").startswith(b"application/json"):
            return False
        origin = headers.get(b"origin", b"").decode("latin-1")
        if not origin:
            return True
        host = self._host or self._named(headers.get(b"host", b"").decode("latin-1"))
        return self._named(urlsplit(origin).netloc) == host

    def _with_headers(self, send: Send, cookie: bytes) -> Send:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = [*message.get("headers", []), *self._headers]
                if cookie:
                    given.append((b"set-cookie", cookie))
                message = {**message, "headers": given}
            await send(message)

        return answer


def _headers(scope: Scope) -> dict[bytes, bytes]:
    """By name; of a chain of proxies each may have written a line of its own."""
    headers = dict(scope["headers"])
    hops = [value for name, value in scope["headers"] if name == _FORWARDED_FOR]
    return {**headers, _FORWARDED_FOR: b",".join(hops)} if hops else headers


async def _or_refused(work: Coroutine[None, None, None], answer: Send) -> None:
    try:
        await work
    except _BodyError as error:
        await _refuse(answer, error.status, error.sentence)


def _is_one_string(body: bytes) -> bool:
    try:
        data: Any = json.loads(body)
    except (ValueError, RecursionError):
        return False
    given = data.get("data") if isinstance(data, dict) and set(data) == {"data"} else None
    return isinstance(given, list) and len(given) == 1 and isinstance(given[0], str)


def _replay(body: bytes) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else {"type": "http.disconnect"}

    return receive


def _hiding_errors(send: Send) -> Send:
    """What Gradio or FastAPI say of an error stays in the operator's log."""
    failed = False

    async def answer(message: Message) -> None:
        nonlocal failed
        if message["type"] == "http.response.start" and message["status"] >= 400:
            failed = True
            await _refuse(send, message["status"], FAILED)
        elif not failed:
            await send(message)

    return answer


async def _redirect(send: Send, location: str) -> None:
    """To the path with its slash, without which the page's relative links lead astray."""
    headers = [(b"location", location.encode()), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 307, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _refuse(
    send: Send, status: int, sentence: str, retry_after_s: float | None = None
) -> None:
    headers = [(b"retry-after", b"%d" % retry_after_s)] if retry_after_s else []
    await _send(send, status, json.dumps({"error": sentence}).encode(), headers)


async def _send(
    send: Send, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]]
) -> None:
    about = [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-store"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": [*about, *headers]})
    await send({"type": "http.response.body", "body": body})
