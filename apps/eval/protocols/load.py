"""Judging protocols: what the judge is shown, and how its verdict is asked for and read.

Each is a YAML file. The built-in ones (vicuna-blog, pairwise-swap, single, mt-bench, verdict) lie
in apps/eval/data/protocols, and `judge --protocol mine.yaml` takes one's own:

    name: brevity
    shows: single            # pair: two answers at once
    format: rating           # rating, scores (of a pair), letter (A, B, C), label (A>>B...), choice
    scale: [1, 5]            # of ratings and scores
    instruction: Rate from 1 to 5 how concise the answer is.

    name: tone
    shows: pair
    orders: [0, 1]           # 1 shows the answers swapped
    format: choice           # labels of one's own, with what they are worth
    labels: {first is kinder: 1, no difference: 0, second is kinder: -1}
    instruction: Decide which assistant is kinder to the user.

Cria adds the form of the verdict where an instruction has no `{nonce}`. The wording of the built-in
ones is Cria's own; `--prompt-file` takes FastChat's `prompt.jsonl` for the blog's historical one.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Literal, cast

import yaml

from apps.common.errors import ConfigError
from apps.common.files import config as configs
from apps.eval.protocols.form import Form, Format
from apps.eval.protocols.parsing import plain

BUILT_IN = ("vicuna-blog", "pairwise-swap", "single", "mt-bench", "verdict")
_SYSTEM = "You judge the answers of chat assistants carefully, impartially and by their substance."


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """What a file holds."""

    name: str
    """Its name in plans and reports."""
    shows: Literal["pair", "single"]
    """One answer a call, or two."""
    format: Format
    """What a verdict is."""
    instruction: str
    """The judge's task; {nonce} stands for the tag before the verdict."""
    instructions: dict[str, str] = field(default_factory=dict[str, str])
    """Other tasks by the question's category."""
    orders: tuple[int, ...] = (0,)
    """0 as listed, 1 swapped."""
    turns: Literal["all", "each"] = "all"
    """The whole conversation in one call, or a call per turn."""
    temperature: float = 0.0
    """Of the judge."""
    max_tokens: int = 2048
    """Longest judgment, tokens."""
    names: tuple[str, str] = ("A", "B")
    """Of the two assistants."""
    scale: tuple[float, float] = (1.0, 10.0)
    """Lowest and highest rating or score."""
    labels: dict[str, float] = field(default_factory=dict[str, float])
    """Of a choice: {label: its worth; of a pair, > 0 where the first answer is better}."""
    adds_form: bool = True
    """End the task with the form of the verdict, unless it has a {nonce} of its own."""
    shows_references: bool = True
    """Show the reference answer where there is one."""
    system: str = _SYSTEM
    """System prompt."""

    def __post_init__(self) -> None:
        if not self.name or not all(char.isalnum() or char in "._-" for char in self.name):
            raise ConfigError(f"name {self.name!r} is not letters, digits, dots and dashes")
        if sorted(self.orders) not in ([0], [1], [0, 1]):
            raise ConfigError(f"orders are {list(self.orders)}; expected 0, 1 or both")
        if not self.is_pairwise and (self.orders != (0,) or self.format in _PAIR_FORMATS):
            raise ConfigError(
                f"{self.name} shows one answer; expected format rating or choice, and orders [0]"
            )
        if self.is_pairwise and self.format == "rating":
            raise ConfigError("a rating is of one answer; expected format scores for a pair")
        if (self.format == "choice") != (len(self.labels) > 1):
            raise ConfigError("format choice needs two labels or more, and only it has labels")
        if not -math.inf < self.scale[0] < self.scale[1] < math.inf:
            raise ConfigError(f"scale is {list(self.scale)}; expected two numbers, the lower first")
        configs.above_zero(self, "", "max_tokens")
        configs.at_least(0, self, "", "temperature")
        self._check_names()
        self._check_labels()
        if not all(task.strip() for task in (self.instruction, *self.instructions.values())):
            raise ConfigError("an instruction is empty; expected what the judge shall decide")

    def _check_names(self) -> None:
        """A verdict in letters names the assistants that it was shown."""
        if not all(self.names) or self.names[0] == self.names[1]:
            raise ConfigError(f"names are {list(self.names)}; expected two that differ")
        if self.format in ("letter", "label") and self.names != ("A", "B"):
            raise ConfigError(
                f"names are {list(self.names)}, and a verdict of format {self.format} says A or B; "
                "leave them out, or give labels of your own with format choice"
            )

    def _check_labels(self) -> None:
        """Every label can be told from the others, and their worths say which is better."""
        if not all(map(math.isfinite, self.labels.values())):
            raise ConfigError(f"labels are worth {[*self.labels.values()]}; expected numbers")
        if self.labels and len(set(self.labels.values())) == 1:
            raise ConfigError("labels are all worth the same; expected a better and a worse one")
        worths = self.labels.values()
        if self.labels and self.is_pairwise and not min(worths) < 0 < max(worths):
            raise ConfigError(
                f"labels are worth {[*worths]}; expected of a pair one above 0, where the first "
                "answer is better, and one below 0, where the second is"
            )
        read = [plain(name).casefold() for name in self.labels]
        if not all(read) or len(set(read)) < len(read):
            raise ConfigError(
                f"labels are {[*self.labels]}; expected words that differ by more than their "
                "capitals"
            )

    @property
    def is_pairwise(self) -> bool:
        return self.shows == "pair"

    @property
    def form(self) -> Form:
        return Form(
            fmt=self.format,
            low=self.scale[0],
            high=self.scale[1],
            labels=tuple(self.labels.items()),
            is_pair=self.is_pairwise,
        )

    def instruction_for(self, category: str) -> str:
        """The task, with the form of the verdict at its end."""
        text = self.instructions.get(category, self.instruction)
        if "{nonce}" in text or not self.adds_form:
            return text
        return f"{text.rstrip()}\n{_FORM} {self.form.example()}"


_PAIR_FORMATS = ("scores", "letter", "label")
_FORM = (
    "Explain briefly, then end with one line that holds the tag {nonce} and your verdict, of "
    "exactly this form:\n{nonce}"
)


def load_protocol(name: str) -> Protocol:
    """A built-in protocol by its name, or one's own by its file."""
    if name in BUILT_IN:
        return _built_in(name)
    if not name.endswith((".yaml", ".yml")):
        raise ConfigError(
            f"protocol {name!r} is unknown; expected {', '.join(BUILT_IN)} or a YAML file"
        )
    protocol = _of(configs.load_yaml(name), name)
    if protocol.name in BUILT_IN:
        raise ConfigError(f"{name}: a built-in protocol has the name {protocol.name}; give another")
    return protocol


@functools.cache
def _built_in(name: str) -> Protocol:
    text = files("apps.eval").joinpath(f"data/protocols/{name}.yaml").read_text()
    return _of(cast(Mapping[str, object], yaml.safe_load(text)), name)


def _of(values: Mapping[str, object], where: str) -> Protocol:
    try:
        return configs.from_dict(Protocol, values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.sentence}") from None


def vicuna_kind(category: str) -> str:
    """Which of the blog's three prompts a category takes; everything else is general."""
    return {"coding": "coding", "math": "math"}.get(category, "general")
