"""The judges of a run: where each is reached, what it may be sent, and what it costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from apps.common.errors import ConfigError, InputError
from apps.eval.calls.client import Endpoint
from apps.eval.calls.endpoints import named_endpoints, parse_endpoint
from apps.eval.calls.rate_gate import Limits
from apps.eval.config import JudgeConfig
from apps.eval.judging.offline import OFFLINE
from apps.eval.judging.prices import BATCH_DISCOUNT, Price, price_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Judge:
    name: str
    endpoints: tuple[Endpoint, ...]
    """several where one model is served in several places; none for the offline judge"""
    limits: tuple[Limits, ...]
    """of each endpoint"""
    price: Price | None
    """None where it is not known"""

    @property
    def model(self) -> str:
        return self.endpoints[0].model if self.endpoints else self.name


def find_judges(config: JudgeConfig) -> dict[str, Judge]:
    """Every --judge by its name. Raises InputError before anything is sent."""
    named = named_endpoints(config.endpoints)
    endpoints: dict[str, list[Endpoint]] = {}
    for text in config.judge:
        if text.partition("=")[0] == OFFLINE:
            if text != OFFLINE or OFFLINE in named:
                raise InputError(
                    f"an endpoint is named {OFFLINE!r}, which is the judge that asks nobody; give "
                    "it another name, as in --judge local=http://127.0.0.1:8000/v1#model"
                )
            endpoints[OFFLINE] = []
            continue
        name, endpoint = parse_endpoint(
            text, "--judge", config.timeout_s, config.api_key_env, named
        )
        endpoints.setdefault(name, []).append(endpoint)
    _refuse_one_price_for_all(endpoints, config)
    return {name: _judge(name, tuple(served), config) for name, served in endpoints.items()}


def _judge(name: str, endpoints: tuple[Endpoint, ...], config: JudgeConfig) -> Judge:
    if len({endpoint.model for endpoint in endpoints}) > 1:
        raise InputError(
            f"--judge {name} is given twice with different models; endpoints of one judge serve "
            "one model, and another judge needs a name of its own"
        )
    if config.backend == "batch" and (
        len(endpoints) > 1 or any(endpoint.style != "openai" for endpoint in endpoints)
    ):
        raise InputError(
            f"--backend batch asks one OpenAI endpoint, and {name} is none; use --backend live"
        )
    price = _price(name, endpoints, config)
    return Judge(
        name=name,
        endpoints=endpoints,
        limits=tuple(_limits(endpoint, config) for endpoint in endpoints),
        price=price.discounted(BATCH_DISCOUNT) if price and config.backend == "batch" else price,
    )


def _limits(endpoint: Endpoint, config: JudgeConfig) -> Limits:
    """The account's, where the endpoints file tells them, else the command's."""
    own = endpoint.limits
    return Limits(
        requests_per_min=own.requests_per_min or config.requests_per_min,
        tokens_per_min=own.tokens_per_min or config.tokens_per_min,
        concurrency=own.concurrency or config.concurrency,
    )


def _refuse_one_price_for_all(
    endpoints: Mapping[str, Sequence[Endpoint]], config: JudgeConfig
) -> None:
    """A price on the command line beside a judge that has its own would be charged for both."""
    if config.usd_per_million_prompt_tokens is None or sum(map(bool, endpoints.values())) < 2:
        return
    known = [
        name
        for name, served in endpoints.items()
        if any(endpoint.prices or price_of(endpoint.model) for endpoint in served)
    ]
    if known:
        rest = [name for name, served in endpoints.items() if served and name not in known]
        advice = f"give the prices of {', '.join(rest)} in an --endpoints file"
        raise ConfigError(
            f"--usd-per-million-prompt-tokens would hold for {', '.join(known)} too, whose price "
            f"is known; {advice if rest else 'leave it out'}"
        )


def _price(name: str, endpoints: tuple[Endpoint, ...], config: JudgeConfig) -> Price | None:
    """The dearest of its endpoints: which one a call goes to is open when it is reserved."""
    each = [_price_at(endpoint, config) for endpoint in endpoints] or [price_of(name)]
    known = [price for price in each if price is not None]
    if len(known) < len(each):
        if config.max_usd is None:
            return None
        raise ConfigError(
            f"--max-usd needs the price of {name}, which is not listed; give its prices in an "
            "--endpoints file, or --usd-per-million-prompt-tokens and "
            "--usd-per-million-completion-tokens"
        )
    return Price(
        usd_per_million_prompt_tokens=max(p.usd_per_million_prompt_tokens for p in known),
        usd_per_million_completion_tokens=max(p.usd_per_million_completion_tokens for p in known),
    )


def _price_at(endpoint: Endpoint, config: JudgeConfig) -> Price | None:
    own, given = endpoint.prices, config.usd_per_million_prompt_tokens
    if own is None or given is not None:
        return price_of(endpoint.model, given, config.usd_per_million_completion_tokens)
    return Price(
        usd_per_million_prompt_tokens=own.usd_per_million_prompt_tokens,
        usd_per_million_completion_tokens=own.usd_per_million_completion_tokens,
    )


def prices(judges: Mapping[str, Judge]) -> dict[str, Price | None]:
    return {name: judge.price for name, judge in judges.items()}
