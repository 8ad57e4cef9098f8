"""Parameters under the names that an endpoint takes, learned from its refusals.

Reasoning models want max_completion_tokens and no temperature. Their names do not always tell: a
deployment may be called anything. So the name is a first guess, and the endpoint's own
`unsupported_parameter` (HTTP 400) decides, once.

The form of a reply is refused in too many words to know, such as "This response_format type is
unavailable now". So any refusal of a request with a form is a reason to send it without.
"""

import re
from collections.abc import Iterable, Mapping

from apps.eval.calls.failure import WRITTEN_CODES
from apps.eval.calls.lines import Parameters

_REASONING_FAMILIES = ("o1", "o3", "o4", "gpt-5")
_CODES = ("unsupported_parameter", "unsupported_value", "unknown_parameter")
_REFUSED = re.compile(
    r"unsupported|not supported|does not support|doesn't support|unrecognized|unknown|unexpected|"
    r"extra inputs|not permitted|not allowed|not accepted|deprecated|unavailable|not available",
    re.IGNORECASE,
)
REPLY_FORM = "response_format"
"""the parameter that holds the form of a reply"""
_LENGTHS = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}


class ParameterFit:
    """What one endpoint takes."""

    def __init__(self, model: str, drop: Iterable[str], rename: Mapping[str, str]) -> None:
        self._drop = set(drop)
        self._rename = dict(rename)
        self._refused_lengths: set[str] = set()
        self.learned: list[str] = []
        """sentences, for people"""
        if model.rpartition("/")[2].startswith(_REASONING_FAMILIES):
            self._drop |= {"temperature", "top_p"}
            self._rename.setdefault("max_tokens", "max_completion_tokens")

    def fitted(self, parameters: Parameters) -> Parameters:
        """The parameters to send; those without a value are left out."""
        return {
            self._rename.get(name, name): value
            for name, value in parameters.items()
            if value is not None and name not in self._drop
        }

    def learn(self, message: str, code: str | None, sent: Parameters) -> bool:
        """Whether the request is worth sending again, without what this refusal names."""
        if code in WRITTEN_CODES:
            return False  # what was written is billed: the caller writes that down first
        if code not in _CODES and not _REFUSED.search(message):
            return False
        named = [name for name in sent if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", message)]
        if not named:
            return False
        refused = min(named, key=lambda name: message.index(name))
        asked = next((own for own, theirs in self._rename.items() if theirs == refused), refused)
        if self._rename.get(asked, asked) != refused or asked in self._drop:
            return True  # another call's refusal has taught it meanwhile
        if asked == "max_tokens":
            return self._learn_length(refused)
        self._drop.add(asked)
        self.learned.append(f"it refuses {refused}, which is left out")
        return True

    def without_form(self, sent: Parameters) -> Parameters | None:
        """What was sent, without the form of the reply; None where it had none."""
        form = self._rename.get(REPLY_FORM, REPLY_FORM)
        return {k: v for k, v in sent.items() if k != form} if form in sent else None

    def drop_form(self) -> None:
        """A request was refused for its form: no later one has it."""
        if REPLY_FORM not in self._drop:
            self._drop.add(REPLY_FORM)
            self.learned.append(f"it refuses a request with {REPLY_FORM}, which is left out")

    def _learn_length(self, refused: str) -> bool:
        """The other name of the longest answer; without one the cost would have no bound."""
        self._refused_lengths.add(refused)
        other = _LENGTHS.get(refused)
        if other is None or other in self._refused_lengths:
            return False
        self._rename["max_tokens"] = other
        self.learned.append(f"it refuses {refused} and gets {other} instead")
        return True
