"""Why questions of a model stay without an answer."""

from dataclasses import dataclass, field

from apps.eval.calls.failure import CallFailure


@dataclass(slots=True)
class Unanswered:
    """What came in place of answers."""

    failures: list[str] = field(default_factory=list[str])
    empty: list[str] = field(default_factory=list[str])
    """why an answer has no text: length, content_filter, tool_calls or what else ended it"""
    refused: CallFailure | None = None
    """why the endpoint refuses every request"""

    @property
    def count(self) -> int:
        return len(self.failures) + len(self.empty)

    def sentence(self, name: str, endpoint_model: str) -> str | None:
        if self.refused:
            advice = self.refused.advice or (
                f"check the URL, the model's name {endpoint_model!r} and the key"
            )
            return f"{name}'s endpoint refuses requests ({self.refused}); {advice}"
        told: list[str] = []
        if self.failures:
            told.append(f"{len(self.failures)} found no response (last: {self.failures[-1]})")
        if cut := self.empty.count("length"):
            told.append(f"{cut} were cut off before any text: give --max-tokens more")
        if filtered := self.empty.count("content_filter"):
            told.append(f"{filtered} were stopped by a content filter")
        if others := [
            reason for reason in self.empty if reason not in ("length", "content_filter")
        ]:
            ends = ", ".join(sorted(set(others)))
            told.append(f"{len(others)} have no text, only thoughts or a tool's call ({ends})")
        return f"{name} left {self.count} questions unanswered: {', '.join(told)}" if told else None
