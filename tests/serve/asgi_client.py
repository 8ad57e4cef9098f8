"""A client of the ASGI application itself, with no socket between; it leaves when it is told."""

import asyncio
from collections.abc import Mapping

from tests.serve.api import Api


class AsgiClient:
    """One request; `left` ends it, `text` is what has come."""

    def __init__(
        self,
        api: Api,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        path: str = "/v1/chat/completions",
    ) -> None:
        self.left = asyncio.Event()
        self.text = b""
        self._body, self._sent_body = body, False
        told = {"content-type": "application/json", **(headers or {})}
        scope = {
            "type": "http", "method": "POST", "path": path, "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in told.items()],
            "client": ("127.0.0.1", 1), "server": ("test", 80),
            "scheme": "http", "http_version": "1.1", "root_path": "",
        }  # fmt: skip
        self.task = asyncio.ensure_future(api.app(scope, self._receive, self._send))

    async def _receive(self) -> dict:
        if self._sent_body:
            await self.left.wait()
            return {"type": "http.disconnect"}
        self._sent_body = True
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def _send(self, message: dict) -> None:
        await asyncio.sleep(0)
        self.text += message.get("body", b"")
