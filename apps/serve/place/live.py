"""What a running service is asked: each model's requests over a while, from its /metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from apps.common.errors import CriaError
from apps.serve.gateway.account import CLIENT_LEFT
from apps.serve.place import arrivals
from apps.serve.place.arrivals import Arrivals

_TIMEOUT_S = 30.0
FEWEST_REQUESTS = 20
"""Fewer say nothing of the traffic."""
_REQUESTS, _PROMPT, _OUTPUT = (
    f"cria_{name}_total" for name in ("requests", "prompt_tokens", "completion_tokens")
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Of one model: since its gateways started, or over a while."""

    requests: float = 0.0
    prompt_tokens: float = 0.0
    output_tokens: float = 0.0


def read(gateway: str, key: str) -> dict[str, Asked]:
    """By model, as the gateway counts at this moment. CriaError where it does not say."""
    url = f"{gateway.rstrip('/')}/metrics"
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        response = httpx.get(url, headers=headers, timeout=_TIMEOUT_S)
        response.raise_for_status()
        return counted(response.text)
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        hint = "; it asks for an admin's key, see --key-env" if status in (401, 403) else ""
        raise CriaError(f"{url} answers {status}{hint}.") from error
    except (httpx.HTTPError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise CriaError(f"{url} cannot be read ({reason}); is it a running gateway?") from error


def counted(scrape: str) -> dict[str, Asked]:
    """Of Prometheus' text, all keys and endpoints together, but for what was refused."""
    totals: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(scrape):
        for sample in family.samples:
            if not _is_refused(sample.labels.get("status", "")):
                key = sample.labels.get("model", ""), sample.name
                totals[key] = totals.get(key, 0.0) + sample.value
    return {
        model: Asked(
            requests=requests,
            prompt_tokens=totals.get((model, _PROMPT), 0.0),
            output_tokens=totals.get((model, _OUTPUT), 0.0),
        )
        for (model, name), requests in totals.items()
        if name == _REQUESTS
    }


def _is_refused(status: str) -> bool:
    """What a client gave up was asked for, and its tokens are counted."""
    return status.startswith("4") and status != str(CLIENT_LEFT)


def between(before: Mapping[str, Asked], after: Mapping[str, Asked]) -> dict[str, Asked]:
    """What came since."""
    return {model: _since(before.get(model, Asked()), now) for model, now in after.items()}


def _since(old: Asked, new: Asked) -> Asked:
    """A counter that fell began again at zero."""

    def grown(before: float, after: float) -> float:
        return after - before if after >= before else after

    return Asked(
        requests=grown(old.requests, new.requests),
        prompt_tokens=grown(old.prompt_tokens, new.prompt_tokens),
        output_tokens=grown(old.output_tokens, new.output_tokens),
    )


def like(
    asked: Sequence[Asked], over_s: float, *, seconds: float, cv: float, seed: int
) -> Arrivals:
    """Made requests at the models' own rates and mean lengths; `asked` came in `over_s`.

    At least FEWEST_REQUESTS, in `seconds` or however long they take to come.
    """
    seconds = max(seconds, 2 * FEWEST_REQUESTS * over_s / sum(one.requests for one in asked))
    each = [
        _of_model(index, one, over_s, seconds, cv, seed + index)
        for index, one in enumerate(asked)
        if one.requests
    ]
    at_s = np.concatenate([one.at_s for one in each])
    order = np.argsort(at_s, kind="stable")
    return Arrivals(
        at_s=at_s[order],
        prompt_tokens=np.concatenate([one.prompt_tokens for one in each])[order],
        output_tokens=np.concatenate([one.output_tokens for one in each])[order],
        model=np.concatenate([one.model for one in each])[order],
    )


def _of_model(
    index: int, asked: Asked, over_s: float, seconds: float, cv: float, seed: int
) -> Arrivals:
    made = arrivals.gamma(
        asked.requests / over_s,
        seconds,
        seed,
        cv,
        prompt=max(round(asked.prompt_tokens / asked.requests), 1),
        output=max(round(asked.output_tokens / asked.requests), 1),
    )
    return replace(made, model=np.full(made.num_requests, index, dtype=np.int64))
