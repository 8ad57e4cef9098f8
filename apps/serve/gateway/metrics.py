"""Numbers of the gateway and the engines, in Prometheus' text format, summed over replicas (shares
are averaged).

Every gateway replica keeps its own counters; whichever is scraped asks all of them and all model
replicas, so that one scrape of the service's address shows the whole service.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from apps.serve.answer.choices import Usage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LATENCY_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class GatewayMetrics:
    """Counters of one gateway replica."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        one: dict[str, Any] = {"registry": self.registry}
        by_model, by_key = ("model",), ("model", "key")
        self.requests = Counter(
            "cria_requests", "Ended requests.", ("model", "endpoint", "status", "key"), **one
        )
        self.failures = Counter(
            "cria_failures", "Requests without their answer, by cause.", ("model", "cause"), **one
        )
        self.waiting = Gauge(
            "cria_requests_waiting", "Requests that wait for their turn.", by_model, **one
        )
        self.in_flight = Gauge("cria_requests_in_flight", "Running requests.", by_key, **one)
        self.prompt_tokens = Counter("cria_prompt_tokens", "Prompt tokens.", by_key, **one)
        self.cached_tokens = Counter(
            "cria_cached_tokens", "Prompt tokens taken from a prefix cache.", by_key, **one
        )
        self.completion_tokens = Counter(
            "cria_completion_tokens", "Generated tokens of answers.", by_key, **one
        )
        self.cost_usd = Counter("cria_cost_usd", "Tokens at the model's prices.", by_key, **one)
        self.budget_days = Counter(
            "cria_key_budget_days",
            "Dollars that a key has spent, over those that it may spend a day.",
            ("key",),
            **one,
        )
        self.received_tokens = Counter(
            "cria_received_tokens",
            "Generated tokens that replicas sent, those after an answer's end included.",
            by_model,
            **one,
        )
        self.first_token_s = Histogram(
            "cria_time_to_first_token_seconds",
            "From the request's arrival to its first token.",
            by_model,
            buckets=_LATENCY_S,
            **one,
        )
        self.request_s = Histogram(
            "cria_request_seconds",
            "From the request's arrival to its end.",
            by_model,
            buckets=_LATENCY_S,
            **one,
        )

    def count_usage(self, model: str, key: str, usage: Usage, usd: float) -> None:
        """Of one request that has ended."""
        amounts = (
            (self.prompt_tokens, usage.prompt_tokens),
            (self.cached_tokens, usage.cached_tokens),
            (self.completion_tokens, usage.completion_tokens),
            (self.cost_usd, usd),
        )
        for counter, amount in amounts:
            counter.labels(model, key).inc(amount)

    def samples(self) -> bytes:
        """All values, for `merge`."""
        families = [
            [
                family.name,
                family.type,
                family.documentation,
                [
                    [sample.name, sorted(sample.labels.items()), sample.value]
                    for sample in family.samples
                    if not sample.name.endswith("_created")
                ],
            ]
            for family in self.registry.collect()
        ]
        return orjson.dumps(families)


def render(
    gateways: Sequence[bytes],
    engines: Mapping[str, Sequence[Mapping[str, float]]],
    pools: Mapping[str, int],
) -> str:
    """The scrape's text: gateway replicas summed, engine replicas summed per model, and of each
    pool how many back ends are well."""
    lines: list[str] = []
    for name, kind, help_text, values in _merged(gateways):
        lines += _family(name, kind, help_text, values)
    lines += _family(
        "cria_replicas",
        "gauge",
        "Model replicas that answered this scrape.",
        {("cria_replicas", (("model", m),)): float(len(r)) for m, r in engines.items()},
    )
    lines += _family(
        "cria_pool_members",
        "gauge",
        "Back ends of a pool that are well.",
        {("cria_pool_members", (("model", m),)): float(number) for m, number in pools.items()},
    )
    for name in sorted({key for replicas in engines.values() for one in replicas for key in one}):
        full, is_share = f"cria_engine_{name}", name.endswith("_ratio")
        values = {
            (full, (("model", model),)): sum(one.get(name, 0.0) for one in replicas)
            / (len(replicas) if is_share and replicas else 1)
            for model, replicas in engines.items()
        }
        lines += _family(
            full.removesuffix("_total"),
            "counter" if name.endswith("_total") else "gauge",
            f"{'Mean' if is_share else 'Sum'} over the model's replicas.",
            values,
        )
    return "\n".join(lines) + "\n"


_Key = tuple[str, tuple[tuple[str, str], ...]]


def _merged(gateways: Sequence[bytes]) -> Iterable[tuple[str, str, str, dict[_Key, float]]]:
    families: dict[str, tuple[str, str, dict[_Key, float]]] = {}
    for snapshot in gateways:
        for name, kind, help_text, samples in orjson.loads(snapshot):
            values = families.setdefault(name, (kind, help_text, {}))[2]
            for sample, labels, value in samples:
                key = (sample, tuple((k, v) for k, v in labels))
                values[key] = values.get(key, 0.0) + value
    for name, (kind, help_text, values) in families.items():
        yield name, kind, help_text, values


def _family(name: str, kind: str, help_text: str, values: Mapping[_Key, float]) -> list[str]:
    shown = f"{name}_total" if kind == "counter" else name
    lines = [f"# HELP {shown} {help_text}", f"# TYPE {shown} {kind}"]
    for (sample, labels), value in values.items():
        inside = ",".join(f'{k}="{_escape(v)}"' for k, v in labels)
        lines.append(f"{sample}{{{inside}}} {value}" if inside else f"{sample} {value}")
    return lines


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
