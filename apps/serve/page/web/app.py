"""The page as an application: Gradio is its ingress, the HTML is our own.

Gradio's own pages need inline scripts and styles, keep a visitor's state in one process, and render
answers in the browser with images and styles. Its server mode has none of that: an API without
components, mounted under a page of ours. That gives a policy without `unsafe-inline`, a layout for
phones, and answers that any process can go on with. Ray Serve's own class for Gradio never starts
Gradio 6 (measured); mounting it into an application that Serve runs does.
"""

import asyncio
import contextlib
import json
import os
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import asdict
from typing import TypeVar

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.gzip import GZipMiddleware
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp

from apps.serve.page.answers.client import ChatClient
from apps.serve.page.answers.moderation import moderator
from apps.serve.page.answers.runner import Runner
from apps.serve.page.answers.watch import events
from apps.serve.page.arena import shared
from apps.serve.page.arena.arena import Arena
from apps.serve.page.arena.evaluation import Shelf
from apps.serve.page.arena.leaderboard import Leaderboard
from apps.serve.page.arena.models import Models, PageModel
from apps.serve.page.arena.sources import Sources
from apps.serve.page.config import PageConfig, database_url
from apps.serve.page.store.conversations import Asker
from apps.serve.page.store.database import Database
from apps.serve.page.store.refusal import Refusal
from apps.serve.page.store.retention import forget_hourly
from apps.serve.page.web.actions import actions_of, add_actions
from apps.serve.page.web.assets import Assets
from apps.serve.page.web.guard import ASKER, FAILED, Guard
from apps.serve.page.web.login import Door
from apps.serve.page.web.visitors import Visitors

T = TypeVar("T")

_MAX_STREAMS = 12
"""of one visitor at a time, in one process"""
_QUEUE_SLEEP_S = 1.0


def build_page(page: PageConfig, api_url: str, models: Sequence[PageModel]) -> ASGIApp:
    """Whoever serves it chooses the path: the page's own links are all relative."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    database = Database(database_url(page))
    client = ChatClient(api_url, page.api_key_env)
    reader = moderator(page)
    runner = Runner(database, client, reader)
    arena = Arena(page, database, runner, Models(client, models), reader)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        forgetting = asyncio.create_task(forget_hourly(database, page.retention_days))
        yield
        forgetting.cancel()
        await runner.close()
        await client.close()
        await reader.close()
        database.close()

    actions = actions_of(arena, Sources(page, database, reader))
    app = FastAPI(title=page.title, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(GZipMiddleware, compresslevel=5)  # leaves event streams alone
    _add_errors(app)
    assets = Assets(page)
    _add_files(app, assets)
    _add_shared(app, assets, database)
    _add_leaderboard(app, Leaderboard(database), Shelf(page.evaluation))
    _add_events(app, arena, runner)
    with gr.Blocks(mode="server", analytics_enabled=False) as blocks:
        add_actions(actions)
    gr.mount_gradio_app(app, blocks, path="/", show_error=False, ssr_mode=False, footer_links=[])
    _look_seldom(blocks)
    secret = database.secret("cookies")
    return Guard(app, page, Visitors(page, secret), Door(page, secret, database), actions)


def _look_seldom(blocks: gr.Blocks) -> None:
    """No action is queued, yet Gradio looks into its queue every millisecond.

    That was 4 % of a core, and each look may push an engine on the same machine off its core.
    """
    blocks._queue.sleep_when_free = _QUEUE_SLEEP_S


def _add_errors(app: FastAPI) -> None:
    """A sentence of ours for whatever FastAPI would say of an error."""

    async def unreadable(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "There is nothing here."}, 404)

    async def broken(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": FAILED}, 500)

    app.add_exception_handler(RequestValidationError, unreadable)
    app.add_exception_handler(StarletteHTTPException, unreadable)
    app.add_exception_handler(Exception, broken)


def _add_files(app: FastAPI, assets: Assets) -> None:
    @app.get("/")
    async def index(request: Request) -> Response:
        return assets.index(_accepts(request))

    @app.get("/static/{digest}/{name}")
    async def static(request: Request, digest: str, name: str) -> Response:
        return assets.static(digest, name, _accepts(request))

    @app.get("/favicon.ico")
    async def icon(request: Request) -> Response:
        return assets.static("", "icon.svg", _accepts(request))

    @app.get("/robots.txt")
    async def robots() -> Response:
        return Response("User-agent: *\nDisallow: /s/\n", media_type="text/plain")


def _add_leaderboard(app: FastAPI, leaderboard: Leaderboard, shelf: Shelf) -> None:
    kept = {"Cache-Control": "private, max-age=10"}

    @app.get("/leaderboard.json")
    async def tables() -> Response:
        evaluation = await asyncio.to_thread(shelf.evaluation)
        judged = {"judge": [asdict(row) for row in evaluation.ratings]}
        return JSONResponse({**await leaderboard.tables(), **judged}, headers=kept)

    @app.get("/style.json")
    async def style() -> Response:
        return JSONResponse(asdict(await leaderboard.style_controlled()), headers=kept)

    @app.get("/evaluation.json")
    async def overview() -> Response:
        evaluation = await asyncio.to_thread(shelf.evaluation)
        return JSONResponse(await asyncio.to_thread(evaluation.overview), headers=kept)

    @app.get("/question.json")
    async def question(id: str) -> Response:
        evaluation = await asyncio.to_thread(shelf.evaluation)
        found = await asyncio.to_thread(evaluation.question, id)
        if not found:
            return JSONResponse({"error": "There is no such question."}, 404)
        return JSONResponse(found, headers=kept)


def _add_shared(app: FastAPI, assets: Assets, database: Database) -> None:
    def read(function: Callable[..., T], *args: str) -> T:
        with database.read() as session:
            return function(session, *args)

    @app.get("/s/{token}.json")
    async def shared_json(token: str) -> Response:
        try:
            return JSONResponse(await asyncio.to_thread(read, shared.shared, token))
        except Refusal as refusal:
            return JSONResponse({"error": str(refusal)}, 404)

    @app.get("/s/{token}")
    async def shared_page(request: Request, token: str) -> Response:
        return assets.index(_accepts(request), base="../")

    @app.get("/download/{conversation_id}.{extension}")
    async def download(
        request: Request, conversation_id: str, extension: str, turn: str = ""
    ) -> Response:
        """`turn` is the last one of the branch that the visitor looks at."""
        asker: Asker | None = request.scope[ASKER]
        whose = (asker.visitor_id if asker else "", conversation_id)
        try:
            if extension == "json":
                body = await asyncio.to_thread(read, shared.as_json, *whose)
            else:
                body = await asyncio.to_thread(read, shared.as_markdown, *whose, turn)
        except Refusal as refusal:
            return JSONResponse({"error": str(refusal)}, 404)
        name = f"conversation-{conversation_id[:8]}.{extension}"
        return Response(
            body,
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
            media_type="application/json" if extension == "json" else "text/markdown",
        )


def _add_events(app: FastAPI, arena: Arena, runner: Runner) -> None:
    open_streams: Counter[str] = Counter()

    @app.get("/events")
    async def follow(request: Request, turns: str) -> Response:
        asker: Asker | None = request.scope[ASKER]
        if asker is None or open_streams[asker.visitor_id] >= _MAX_STREAMS:
            return JSONResponse({"error": "Too many pages of yours are open."}, 429)
        visitor_id = asker.visitor_id
        own = await asyncio.to_thread(arena.own_turns, asker, turns.split(","))

        async def body() -> AsyncGenerator[str, None]:
            open_streams[visitor_id] += 1
            try:
                yield "retry: 1000\n\n"
                async with contextlib.aclosing(events(runner, own)) as changes:
                    async for event in changes:
                        yield f"data: {json.dumps(event)}\n\n"
                yield "event: end\ndata: {}\n\n"
            finally:
                open_streams.subtract([visitor_id])
                if not open_streams[visitor_id]:
                    del open_streams[visitor_id]

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(body(), headers=headers, media_type="text/event-stream")


def _accepts(request: Request) -> str:
    return request.headers.get("accept-encoding", "")
