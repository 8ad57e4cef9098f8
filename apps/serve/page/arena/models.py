"""The models that visitors may ask: which are up, how long their answers may be, their cards."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from apps.common.errors import CriaError
from apps.common.files import lineage
from apps.serve.page.answers.client import (
    AnswerError,
    ChatClient,
    KeyRefusedError,
    ModelInfo,
)

_AGE_S = 2.0
_DEFAULT_MAX_TOKENS = 512
_MAX_TOKENS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class PageModel:
    """What the configuration says of a model."""

    name: str
    path: str = ""
    max_output_tokens: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelUp:
    """A model that can be asked now."""

    name: str
    max_tokens: int
    """longest answer that may be asked for"""


class Models:
    """Asks the API which models are up, at most every two seconds."""

    def __init__(self, client: ChatClient, known: Sequence[PageModel]) -> None:
        self._client = client
        self._known = {model.name: model for model in known}
        self._up: list[ModelUp] = []
        self.refusal = ""
        """why there will be none, however long one waits"""
        self._asked_s = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def up(self) -> list[ModelUp]:
        """[] while the API cannot be reached; whoever comes meanwhile waits for the same answer."""
        if self._asking is None and time.monotonic() - self._asked_s > _AGE_S:
            self._asking = asyncio.create_task(self._ask())
        if self._asking is not None:
            await asyncio.shield(self._asking)  # a visitor who leaves takes nobody's answer along
        return self._up

    async def _ask(self) -> None:
        try:
            self._up = [self._model_up(info) for info in await self._client.models()]
            self._asked_s, self.refusal = time.monotonic(), ""
        except AnswerError as error:
            self._up = []
            self.refusal = str(error) if isinstance(error, KeyRefusedError) else ""
        finally:
            self._asking = None

    def _model_up(self, info: ModelInfo) -> ModelUp:
        return ModelUp(name=info.name, max_tokens=self._max_tokens(info.name, info.context_tokens))

    def _max_tokens(self, name: str, context_tokens: int | None) -> int:
        limit = self._known[name].max_output_tokens if name in self._known else None
        return min(n for n in (_MAX_TOKENS, limit, context_tokens) if n)

    def card(self, name: str) -> dict[str, object]:
        """Facts for visitors from the model folder's lineage; the name alone where it has none."""
        model = self._known.get(name)
        record: Mapping[str, object] = {}
        if model and model.path:
            try:
                record = lineage.read(model.path)
            except (CriaError, OSError, ValueError):
                record = {}
        return {"name": name, "facts": _facts(record)}


def default_max_tokens(models: Sequence[ModelUp]) -> int:
    return min([_DEFAULT_MAX_TOKENS, *(model.max_tokens for model in models)])


def _facts(record: Mapping[str, object]) -> list[tuple[str, str]]:
    """Never a path: a visitor learns what base and data are called, not where they lie."""
    facts: list[tuple[str, str]] = []
    if base := str(record.get("base_model") or ""):
        facts.append(("Base", _name(base)))
    facts += _data(record)
    if isinstance(tokens := record.get("tokens"), int):
        facts.append(("Trained on", f"{tokens:,} tokens"))
    if isinstance(usd := record.get("usd"), int | float) and usd:  # 0: nobody stated a price
        facts.append(("Cost", f"${usd:,.2f}"))
    facts += _savings(record.get("cost"))
    if created := str(record.get("created") or ""):
        facts.append(("Made", created[:10]))
    return facts


def _name(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]


def _data(record: Mapping[str, object]) -> list[tuple[str, str]]:
    """The pack's name and the beginning of its digest, by which others can tell it apart."""
    match record:
        case {"inputs": {"data": str() as digest}, "run": {"data": str() as path}}:
            return [("Data", f"{_name(path)}, digest {digest[:8]}")]
        case _:
            return []


def _savings(cost: object) -> list[tuple[str, str]]:
    """What spot machines saved, and what their preemptions took back."""
    match cost:
        case {"usd_on_demand": int() | float() as dear, "lost_work_usd": int() | float() as lost}:
            facts = [("On demand", f"${dear:,.2f}")] if dear else []
            return facts + ([("Work lost", f"${lost:,.2f}")] if lost else [])
        case _:
            return []
