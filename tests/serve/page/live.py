"""The page alone, served for real, before an API whose models say what a test wants."""

import asyncio
import json
import math
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, ClassVar

import httpx
import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

Says = Callable[[list[dict[str, str]]], str]


class Upstream:
    """An OpenAI API. A model's answer is a function of the messages; an int is an HTTP error."""

    def __init__(self, models: Mapping[str, Says | int]) -> None:
        self.models = dict(models)
        self.piece_s = 0.0
        self.pieces = math.inf
        """of an answer that come until the test allows more"""
        self.numbers = False
        """whether events carry ids, and a stream goes on behind the one that comes back"""
        self.cut_after = 0
        """break the connection after so many events, once"""
        self.forgets = False
        """whether a stream that comes back begins anew, without ids"""
        self.context_tokens: dict[str, int] = {}
        """of models that take fewer than 4096"""
        self.resumed_behind: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.app = FastAPI()
        self.app.get("/v1/models")(self._list)
        self.app.post("/v1/chat/completions")(self._complete)

    async def _list(self) -> dict[str, Any]:
        tokens = {**dict.fromkeys(self.models, 4096), **self.context_tokens}
        return {"data": [{"id": name, "context_tokens": tokens[name]} for name in self.models]}

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        says = self.models[body["model"]]
        if isinstance(says, int):
            message = f"{body['model']} failed at /srv/secret/key-sk-12345"
            return JSONResponse({"error": {"message": message}}, says)
        last = request.headers.get("last-event-id", "")
        self.resumed_behind += [last] if last else []
        if last and self.forgets:
            self.numbers, last = False, ""
        sent = int(last.partition(":")[2] or 0)
        return StreamingResponse(self._events(says(body["messages"]), sent))

    async def _events(self, text: str, sent: int) -> AsyncIterator[str]:
        size = max(1, len(text) // 20)
        for number, start in enumerate(range(0, len(text), size), 1):
            if number <= sent:
                continue
            if number > self.cut_after > 0:
                self.cut_after = 0
                return
            while number > self.pieces:
                await asyncio.sleep(0.02)
            await asyncio.sleep(self.piece_s)
            event = _event({"delta": {"content": text[start : start + size]}})
            yield event.replace("\n\n", f"\nid: stream:{number}\n\n") if self.numbers else event
        yield _event({"delta": {}, "finish_reason": "stop"}, {"completion_tokens": len(text)})
        yield "data: [DONE]\n\n"


def _event(choice: dict[str, Any], usage: dict[str, int] | None = None) -> str:
    return f"data: {json.dumps({'choices': [choice], 'usage': usage})}\n\n"


class Live:
    """An ASGI application on a loopback port, its loop in a thread."""

    def __init__(self, app: Any, port: int = 0) -> None:
        config = uvicorn.Config(app, port=port, log_level="error", ws="none", lifespan="on")
        config.timeout_graceful_shutdown = 2
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> "Live":
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()


class Person:
    """A visitor with a cookie, without a browser."""

    clients: ClassVar[list[httpx.Client]] = []

    def __init__(self, url: str, cookie: bool = True) -> None:
        # Loading certificates that plain http never needs takes 50 ms, a third of a short visit.
        # A browser asks again when its idle connection was closed meanwhile; here none is idle.
        limits = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(base_url=url, timeout=30, verify=False, limits=limits)
        self.clients.append(self.http)
        if cookie:
            self.http.get("/")

    def act(self, name: str, **body: Any) -> dict[str, Any]:
        return self.raw(name, json.dumps(body))

    def raw(self, name: str, text: object) -> dict[str, Any]:
        response = self.http.post(f"/gradio_api/run/{name}", json={"data": [text]})
        found = response.json()
        return json.loads(found["data"][0]) if "data" in found else found

    def ask(self, text: str = "Why?", kind: str = "battle", **fields: Any) -> dict[str, Any]:
        return self.act("ask", **{"id": uuid.uuid4().hex, "text": text, "kind": kind, **fields})

    def history(self, before_s: float = 1e15) -> list[dict[str, Any]]:
        return self.act("history", before_s=before_s)["history"]

    def wait(self, view: dict[str, Any]) -> dict[str, Any]:
        """The battle or conversation once all its answers have ended."""
        deadline_s = time.monotonic() + 20
        while True:
            view = self.act("open", id=view["id"])
            turns = [t for side in view.get("sides", [view.get("turns", [])]) for t in side]
            if all(turn["status"] not in ("waiting", "running") for turn in turns):
                return view
            assert time.monotonic() < deadline_s, view
            time.sleep(0.02)

    def events(self, turns: list[str]) -> list[dict[str, Any]]:
        return list(self.follow(turns))

    def follow(self, turns: list[str]) -> Iterator[dict[str, Any]]:
        """Changes as they come, until all answers have ended or the connection has."""
        with self.http.stream("GET", "events", params={"turns": ",".join(turns)}) as response:
            for line in response.iter_lines():
                event = json.loads(line[6:]) if line.startswith("data: {") else {}
                if event:
                    yield event
