"""A placement as the YAML that `apps.serve run` takes, and in sentences."""

from collections.abc import Iterator, Mapping, Sequence

from apps.serve.config import ModelConfig, ServeConfig
from apps.serve.engine.config import PoolConfig
from apps.serve.place.placement import (
    MEMORY_SHARE,
    Group,
    Model,
    Placement,
    least_bytes,
    placement,
)
from apps.serve.place.search import Problem, Score

_PIPELINE = "--pipeline-parallel-size"
"""vLLM's flag, written here and read again"""


def service(groups: Placement, models: Sequence[Model], *, spot: bool = False) -> dict[str, object]:
    """`{"models": [...]}`; a model that stands in no group is left out.

    A replica alone on its GPUs reserves them. Replicas that share GPUs reserve a share of one, or,
    where each is spread over several, a custom resource that nodes with such a group must offer.
    With `spot` each entry has a market; a model on both is a pool of NAME-stable and NAME-spot.
    """
    entries = list[dict[str, object]]()
    at = list(zip(groups, markets(groups), strict=True))
    for index in range(len(models)):
        by_market = {
            market: [group for group, its in at if index in group.models and its == market]
            for market in ("stable", "spot")
        }
        if not spot and (held := _of(groups, index)):
            entries.append(_entry(index, held, models))
        elif by_market["spot"]:
            entries += _pool(index, by_market, models)
        elif by_market["stable"]:
            entries.append(_entry(index, by_market["stable"], models, market="stable"))
    return {"models": entries}


def _pool(
    index: int, by_market: Mapping[str, Sequence[Group]], models: Sequence[Model]
) -> list[dict[str, object]]:
    """Its members come first: `spot` is never alone."""
    name = models[index].name
    members: list[dict[str, object]] = [
        {"model": f"{name}-{market}", "weight": float(len(groups))}
        for market, groups in by_market.items()
    ]
    entries = [
        {**_entry(index, groups, models, market=market), "name": f"{name}-{market}"}
        for market, groups in by_market.items()
    ]
    return [*entries, {"name": name, "engine": "pool", "options": {"members": members}}]


def in_use(served: ServeConfig, models: Sequence[Model]) -> Placement:
    """The placement that such a YAML says, of these models; others are left out.

    Which models share GPUs is Ray's choice when they start, so those that may are put together in
    their order: halves of A, A, B and C are groups of A and B, and of A and C.
    """
    indices = {model.name: index for index, model in enumerate(models)}
    for entry in served.models:
        config = entry.engine_config(entry.path)
        if isinstance(config, PoolConfig) and entry.name in indices:
            indices |= {member.model: indices[entry.name] for member in config.members}
    held: list[tuple[Group, float]] = []
    for entry in served.models:
        if entry.name in indices and entry.engine != "pool":
            for _ in range(entry.replicas):
                _put(held, indices[entry.name], entry)
    return placement([group for group, _ in held])


def _put(held: list[tuple[Group, float]], index: int, entry: ModelConfig) -> None:
    """Into the first group of its kind with room, or a new one; with each, the share taken."""
    arguments = list(entry.options.get("server_args", ()))
    pipeline, tensor = 1, int(entry.options.get("tensor_parallel_size", 1))
    if _PIPELINE in arguments:
        pipeline = int(arguments[arguments.index(_PIPELINE) + 1])
    part = max([entry.resources.gpus, *entry.resources.custom.values()])
    share = min(part or 1.0, 1.0)
    for number, (group, taken) in enumerate(held):
        is_alike = (group.tensor, group.pipeline) == (tensor, pipeline)
        if is_alike and index not in group.models and taken + share <= 1.001:
            held[number] = (group.holding([*group.models, index]), taken + share)
            return
    held.append((Group(tensor=tensor, pipeline=pipeline, models=(index,)), share))


def _of(groups: Placement, index: int) -> list[Group]:
    return [group for group in groups if index in group.models]


def _entry(
    index: int, groups: Sequence[Group], models: Sequence[Model], market: str = "any"
) -> dict[str, object]:
    model = models[index]
    group, sharing = groups[0], max(len(group.models) for group in groups)
    arguments: list[str] = []
    if group.pipeline > 1:
        arguments += [_PIPELINE, str(group.pipeline)]
    if sharing > 1:
        arguments += ["--gpu-memory-utilization", f"{_memory_share(index, groups, models):.3f}"]
    options: dict[str, object] = {"tensor_parallel_size": group.tensor}
    if arguments:
        options["server_args"] = arguments
    return {
        "name": model.name,
        "path": model.path,
        "engine": "vllm",
        "options": options,
        "replicas": len(groups),
        "resources": _resources(group, sharing) | ({} if market == "any" else {"market": market}),
    }


def _memory_share(index: int, groups: Sequence[Group], models: Sequence[Model]) -> float:
    """Of each GPU's memory, by what each of the models that share it needs at least."""
    least = [least_bytes(model) for model in models]
    shares = (least[index] / sum(least[other] for other in group.models) for group in groups)
    return MEMORY_SHARE * min(shares)


def _resources(group: Group, sharing: int) -> dict[str, object]:
    if sharing == 1:
        return {"gpus": float(group.num_gpus)}
    if group.num_gpus == 1:
        return {"gpus": round(1 / sharing, 4)}
    return {"gpus": 0.0, "custom": {shared_name(group): round(1 / sharing, 4)}}


def shared_name(group: Group) -> str:
    """Of the custom resource that a node offers once for each such group."""
    return f"shared_{group.tensor}x{group.pipeline}"


def markets(groups: Placement) -> list[str]:
    """`stable` for a group that is the first to hold some model, else `spot`: what may be taken
    away is never the only place of a model."""
    seen: set[int] = set()
    made: list[str] = []
    for group in groups:
        made.append("spot" if set(group.models) <= seen else "stable")
        seen |= set(group.models)
    return made


def explanation(
    problem: Problem, contenders: Mapping[str, Placement], best: Placement, *, is_optimal: bool
) -> Iterator[str]:
    """Why this one: every group, every model, and what the others would have given."""
    total = problem.arrivals.num_requests
    how = "every placement was tried" if is_optimal else "local search"
    yield f"{total:,} requests, {problem.arrivals.seconds / 60:.1f} min; {how}"
    for name, groups in {**contenders, "proposed": best}.items():
        yield _line(name, problem.score(groups), total, sum(group.num_gpus for group in groups))
    for number, (group, market) in enumerate(zip(best, markets(best), strict=True)):
        names = ", ".join(problem.models[index].name for index in group.models)
        way = f"tensor {group.tensor}"
        if group.pipeline > 1:
            way += f", pipeline {group.pipeline}"
        yield f"group {number}: {group.num_gpus} GPUs ({way}), {market}: {names}"
        if group.num_gpus > 1 and len(group.models) > 1:
            yield f"  shared over several GPUs: its node offers {shared_name(group)} once"
    yield from _models(problem, best)


def _line(name: str, score: Score, total: int, num_gpus: int) -> str:
    share = score.attained / total
    return (
        f"{name}: {share:.1%} within the SLO, {-score.minus_latency_s:.1f} s mean, {num_gpus} GPUs"
    )


def _models(problem: Problem, best: Placement) -> Iterator[str]:
    asked, unserved = problem.requests(), problem.score(best).unserved
    for index, model in enumerate(problem.models):
        replicas = len(_of(best, index))
        late = unserved[index] / asked[index] if asked[index] else 0.0
        yield (
            f"{model.name}: {asked[index] / problem.arrivals.num_requests:.0%} of the requests, "
            f"{replicas} replicas, {late:.1%} late"
        )
