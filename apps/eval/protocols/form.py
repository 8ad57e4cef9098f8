"""What a verdict is: the kinds, their scale or labels, and how a judge is asked for one.

scores    two numbers for the answers in displayed order (0 was given to empty answers)
rating    one number
letter    A, B or C (tie)
label     one of A>>B, A>B, A=B, B>A, B>>A
choice    a label of the protocol's own, with what it is worth
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Format = Literal["scores", "rating", "letter", "label", "choice"]
LABELS = ("A>>B", "A>B", "A=B", "B>A", "B>>A")


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    fmt: Format
    low: float = 1.0
    high: float = 10.0
    labels: tuple[tuple[str, float], ...] = ()
    """of a choice, with their worth; of a pair, > 0 where the first answer is better"""
    is_pair: bool = False
    """a choice between two answers, which is a verdict and no score"""

    @property
    def scale(self) -> tuple[float, float] | None:
        """Lowest and highest score of an answer; None where a verdict only says who is better."""
        if self.fmt in ("rating", "scores"):
            return (self.low, self.high)
        worths = [worth for _, worth in self.labels]
        return (min(worths), max(worths)) if worths and not self.is_pair else None

    @property
    def lowest_read(self) -> float:
        """An empty answer was given 0 of 1 to 10 in the published reviews."""
        return 0.0 if self.fmt == "scores" and self.low == 1.0 else self.low

    def example(self) -> str:
        """The end of an instruction: one verdict, and what may stand in its place."""
        scale = f"from {self.low:g} to {self.high:g}"
        middle = f"{round((self.low + self.high) / 2):g}"
        if self.fmt == "rating":
            return f"[[{middle}]]\nwith your rating {scale} in place of {middle}."
        if self.fmt == "scores":
            return f"({middle}, {middle})\nwith the scores {scale} of both assistants in order."
        if self.fmt == "letter":
            return "[[A]]\nwith A if Assistant A is better, B if Assistant B is, C for a tie."
        names = LABELS if self.fmt == "label" else tuple(name for name, _ in self.labels)
        return f"[[{names[0]}]]\nwith one of these labels: {', '.join(names)}."

    def json_example(self) -> str:
        """The same as JSON."""
        scale = f"from {self.low:g} to {self.high:g}"
        if self.fmt == "rating":
            return (
                f'{{"rating": {self.high:g}}}, with your rating {scale} in place of {self.high:g}'
            )
        if self.fmt == "scores":
            return f'{{"scores": [7, 8]}}, with the scores {scale} of the two assistants'
        names = self._names()
        return f'{{"verdict": "{names[0]}"}}, with one of {", ".join(names)}' + (
            ", where C is a tie" if self.fmt == "letter" else ""
        )

    def json_schema(self) -> dict[str, object]:
        """Of that JSON."""
        values: Mapping[str, object] = {"verdict": {"type": "string", "enum": [*self._names()]}}
        if self.fmt == "rating":
            values = {"rating": {"type": "number"}}
        elif self.fmt == "scores":
            values = {"scores": {"type": "array", "items": {"type": "number"}}}
        return {
            "type": "object",
            "properties": values,
            "required": [*values],
            "additionalProperties": False,
        }

    def _names(self) -> tuple[str, ...]:
        named = {"letter": ("A", "B", "C"), "label": LABELS}
        return named.get(self.fmt, tuple(name for name, _ in self.labels))
