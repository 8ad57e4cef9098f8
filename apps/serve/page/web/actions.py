"""The arena's actions as Gradio's API: one JSON text in, one JSON text out.

Gradio's queue answers a call in two requests that must meet the same process, and what it queued is
gone with it. So actions are not queued, which makes them one request that any process answers, and
answers flow through app.py's own events.
"""

import contextlib
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import gradio as gr
from gradio.events import api

from apps.common.errors import ConfigError
from apps.common.files import config as configs
from apps.common.json_value import JsonObject, JsonValue
from apps.serve.page.arena.arena import Arena, Question, Reply
from apps.serve.page.arena.sources import Sources
from apps.serve.page.store.conversations import Asker
from apps.serve.page.store.refusal import Refusal
from apps.serve.page.store.text import storable
from apps.serve.page.web.guard import ASKER, FAILED

logger = logging.getLogger("ray.serve")

Action = Callable[[Asker, JsonObject], Awaitable[Reply]]
_UNREADABLE = "The page sent something that is not understood here. Reload it."


def actions_of(arena: Arena, sources: Sources) -> dict[str, Action]:
    """By the name under which the page calls them."""

    async def ask(asker: Asker, body: JsonObject) -> Reply:
        return await arena.ask(asker, _question(body))

    return {
        "ask": ask,
        "start": _with(arena.start),
        "history": _with(arena.history, before_s=float),
        "stop": _with(arena.stop, turns=list),
        "retry": _with(arena.retry, turn=str),
        "vote": _with(arena.vote, battle=str, verdict=str),
        "open": _with(arena.open, id=str),
        "share": _with(arena.share, id=str, turn=str),
        "delete": _with(arena.delete, id=str),
        "sources": _with(sources.look, turn=str),
    }


def add_actions(actions: Mapping[str, Action]) -> None:
    """Registers them in the Gradio blocks that are being built."""
    for name, action in actions.items():
        api(_endpoint(name, action), api_name=name, queue=False)


def _endpoint(name: str, action: Action) -> Callable[..., Awaitable[str]]:
    async def endpoint(body: str, request: gr.Request) -> str:
        raw: Any = request.request
        try:
            given = json.loads(body)
            if not isinstance(given, dict):
                raise Refusal(_UNREADABLE)
            return json.dumps(await action(raw.scope[ASKER], given))
        except Refusal as refusal:
            return json.dumps({"error": str(refusal), "retry_after_s": refusal.retry_after_s})
        except (ValueError, RecursionError):
            return json.dumps({"error": _UNREADABLE})
        except Exception:
            logger.exception("the action %s failed", name)
            return json.dumps({"error": FAILED})

    return endpoint


def _with(method: Callable[..., Awaitable[Reply]], **kinds: type) -> Action:
    async def action(asker: Asker, body: JsonObject) -> Reply:
        given: dict[str, JsonValue] = {}
        for name, kind in kinds.items():
            value = body.get(name)
            if kind is float and type(value) is int:  # a script's numbers are of one kind
                with contextlib.suppress(OverflowError):  # it stays of the wrong kind
                    value = float(value)
            if not isinstance(value, kind):
                raise Refusal(_UNREADABLE)
            given[name] = storable(value) if isinstance(value, str) else value
        return await method(asker, **given)

    assert set(kinds) <= set(inspect.signature(method).parameters)
    return action


def _question(body: JsonObject) -> Question:
    texts = {k: storable(v) if isinstance(v, str) else v for k, v in body.items()}
    try:
        return configs.from_dict(Question, texts)
    except ConfigError as error:
        raise Refusal(_UNREADABLE) from error
