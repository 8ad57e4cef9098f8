"""Requests over time: Azure's trace, or made up; shared out among models by a power law."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from apps.common.errors import InputError
from apps.common.files import storage

_AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrivals:
    """One entry a request, in the order of arrival."""

    at_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    model: NDArray[np.int64]
    """Index of the model that is asked."""

    @property
    def num_requests(self) -> int:
        return int(self.at_s.size)

    @property
    def seconds(self) -> float:
        return float(self.at_s[-1] - self.at_s[0]) if self.num_requests else 0.0

    def between(self, start_s: float, end_s: float) -> "Arrivals":
        """Those of a span, whose clock begins at 0."""
        inside = (self.at_s >= start_s) & (self.at_s < end_s)
        return Arrivals(
            at_s=self.at_s[inside] - start_s,
            prompt_tokens=self.prompt_tokens[inside],
            output_tokens=self.output_tokens[inside],
            model=self.model[inside],
        )

    def busiest(self, count: int) -> "Arrivals":
        """So many in a row that come in the shortest time: where queues build up."""
        if self.num_requests <= count:
            return self
        spans_s = self.at_s[count:] - self.at_s[:-count]
        first = int(spans_s.argmin())
        return self.between(float(self.at_s[first]), float(self.at_s[first + count]))

    def faster(self, times: float) -> "Arrivals":
        """The same requests in less time."""
        return Arrivals(
            at_s=self.at_s / times,
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            model=self.model,
        )


def read_azure(uri: str) -> Arrivals:
    """`TIMESTAMP,ContextTokens,GeneratedTokens` (github.com/Azure/AzurePublicDataset), one model.

    A moment without a zone is one of UTC: a clock of summer and winter would have hours that come
    twice. InputError where the columns are others.
    """
    with storage.open_file(uri) as handle:
        rows = list(csv.DictReader(handle.read().decode("utf-8-sig", "replace").splitlines()))
    if not rows:
        raise InputError(
            f"{uri} has no requests; expected a row for each under {', '.join(_AZURE)}."
        )
    if not set(_AZURE) <= set(rows[0]):
        raise InputError(f"{uri} is no trace of requests; expected columns {', '.join(_AZURE)}.")
    try:
        moments = [_unix_s(row["TIMESTAMP"]) for row in rows]
        prompts = np.array([_tokens(row["ContextTokens"]) for row in rows], dtype=np.int64)
        outputs = np.array([_tokens(row["GeneratedTokens"]) for row in rows], dtype=np.int64)
    except (ValueError, TypeError, OverflowError) as error:  # TypeError: a row that ends too soon
        raise InputError(
            f"{uri} has a row that is none ({error}); expected a moment, as "
            "2023-11-16 18:15:46.680590, and two whole numbers."
        ) from error
    at_s = np.array(moments) - min(moments)
    order = np.argsort(at_s, kind="stable")
    return Arrivals(
        at_s=at_s[order],
        prompt_tokens=prompts[order],
        output_tokens=outputs[order],
        model=np.zeros(len(rows), dtype=np.int64),
    )


def _unix_s(moment: str) -> float:
    """Of `2023-11-16 18:15:46.6805900`, with a zone or without; digits beyond microseconds go."""
    read = datetime.fromisoformat(moment)
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


def _tokens(text: str) -> int:
    """At least one, as a request has. ValueError for less than none."""
    if (count := int(text)) < 0:
        raise ValueError(f"{count} tokens")
    return max(count, 1)


def gamma(
    rate_per_s: float,
    seconds: float,
    seed: int,
    cv: float = 1.0,
    prompt: int = 512,
    output: int = 200,
) -> Arrivals:
    """Gaps of a gamma distribution: coefficient of variation 1 is Poisson, 4 is bursty.

    Lengths are geometric with the stated means.
    """
    rng = np.random.default_rng(seed)
    shape = 1 / cv**2
    gaps = rng.gamma(shape, 1 / rate_per_s / shape, size=int(rate_per_s * seconds * 2) + 20)
    at_s = np.cumsum(gaps)
    at_s = at_s[at_s < seconds]
    return Arrivals(
        at_s=at_s,
        prompt_tokens=rng.geometric(1 / prompt, at_s.size),
        output_tokens=rng.geometric(1 / output, at_s.size),
        model=np.zeros(at_s.size, dtype=np.int64),
    )


def bursty(rate_per_s: float, seconds: float, seed: int) -> Arrivals:
    """As BurstGPT describes its months of ChatGPT use (arXiv 2401.17644): the rate itself changes
    from minute to minute by a gamma distribution of shape 0.5, so that most minutes are quiet;
    prompts are Zipf-like, answers of two kinds, short and long."""
    rng = np.random.default_rng(seed)
    at_s: list[NDArray[np.float64]] = []
    for start_s in np.arange(0.0, seconds, 60.0):
        length_s = min(60.0, seconds - start_s)
        count = rng.poisson(rng.gamma(0.5, rate_per_s / 0.5) * length_s)
        at_s.append(np.sort(start_s + rng.random(count) * length_s))
    moments = np.concatenate(at_s)
    is_long = rng.random(moments.size) < 0.4
    answers = np.where(
        is_long, rng.normal(380, 120, moments.size), rng.exponential(40, moments.size)
    )
    return Arrivals(
        at_s=moments,
        prompt_tokens=np.clip(rng.zipf(1.4, moments.size) * 8, 1, 4000),
        output_tokens=np.clip(answers.astype(np.int64), 1, 2000),
        model=np.zeros(moments.size, dtype=np.int64),
    )


def power_law(num_models: int, exponent: float = 1.0) -> list[float]:
    """Shares of models by rank: 1, 1/2, 1/3, ... to the power, adding up to 1."""
    logs = -exponent * np.log(np.arange(1, num_models + 1, dtype=np.float64))
    weights = np.exp(logs - logs.max())
    return (weights / weights.sum()).tolist()


def split(arrivals: Arrivals, shares: Sequence[float], seed: int = 0) -> Arrivals:
    """Every request asks a model that is drawn by the shares."""
    weights = np.array(shares, dtype=np.float64) / max(shares)
    rng = np.random.default_rng(seed)
    return Arrivals(
        at_s=arrivals.at_s,
        prompt_tokens=arrivals.prompt_tokens,
        output_tokens=arrivals.output_tokens,
        model=rng.choice(len(weights), size=arrivals.num_requests, p=weights / weights.sum()),
    )
