"""List prices of judges, US dollars per million tokens; check them before a large run.

Noted 2025-10 from the provider's price page; override with --usd-per-million-prompt-tokens and
--usd-per-million-completion-tokens. A dated snapshot (`gpt-4o-2024-08-06`) has its family's price
unless it is listed itself.
"""

from dataclasses import dataclass

from apps.common.errors import ConfigError
from apps.eval.judging.offline import is_offline

BATCH_DISCOUNT = 0.5

_LIST = {
    "gpt-5": (1.25, 10.0),
    "gpt-5-mini": (0.25, 2.0),
    "gpt-5-nano": (0.05, 0.4),
    "gpt-4.1": (2.0, 8.0),
    "gpt-4.1-mini": (0.4, 1.6),
    "gpt-4.1-nano": (0.1, 0.4),
    "gpt-4o": (2.5, 10.0),
    "gpt-4o-2024-05-13": (5.0, 15.0),
    "gpt-4o-mini": (0.15, 0.6),
    "gpt-4-turbo": (10.0, 30.0),
    "gpt-4": (30.0, 60.0),
    "gpt-3.5-turbo": (0.5, 1.5),
    "o3": (2.0, 8.0),
    "o4-mini": (1.1, 4.4),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    usd_per_million_prompt_tokens: float
    usd_per_million_completion_tokens: float

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (
            prompt_tokens * self.usd_per_million_prompt_tokens
            + completion_tokens * self.usd_per_million_completion_tokens
        ) / 1e6

    def discounted(self, share: float) -> "Price":
        return Price(
            usd_per_million_prompt_tokens=self.usd_per_million_prompt_tokens * share,
            usd_per_million_completion_tokens=self.usd_per_million_completion_tokens * share,
        )


def price_of(
    judge: str, prompt_usd: float | None = None, completion_usd: float | None = None
) -> Price | None:
    """The price of a judge; None if it is not known."""
    if is_offline(judge):
        return Price(usd_per_million_prompt_tokens=0.0, usd_per_million_completion_tokens=0.0)
    if (prompt_usd is None) != (completion_usd is None):
        raise ConfigError("give the prices of prompt and completion tokens together")
    if prompt_usd is None or completion_usd is None:
        # The longest listed name that the judge's name extends by a snapshot date.
        family = judge
        while family and family not in _LIST:
            family = family.rpartition("-")[0]
            if family in _LIST and not judge.removeprefix(f"{family}-").replace("-", "").isdigit():
                return None
        if not family:
            return None
        prompt_usd, completion_usd = _LIST[family]
    return Price(
        usd_per_million_prompt_tokens=prompt_usd, usd_per_million_completion_tokens=completion_usd
    )
