"""A placement as the YAML that `apps.serve run` takes."""

from collections.abc import Mapping, Sequence

from apps.serve.place.placement import MEMORY_SHARE, Group, Model, Placement, least_bytes

PIPELINE, MEMORY = "--pipeline-parallel-size", "--gpu-memory-utilization"
"""vLLM's flags, written here and read again"""
SHARED = "shared_"
"""what the names of its custom resources begin with"""
Entry = dict[str, object]
"""One of the YAML's models."""


def service(
    groups: Placement, models: Sequence[Model], *, spot: bool = False, is_cpus: bool = False
) -> dict[str, list[Entry]]:
    """`{"models": [...]}`; a model that stands in no group is left out.

    A replica alone on its GPUs reserves them. Replicas that share GPUs reserve a share of one, or,
    where each is spread over several, a custom resource that nodes with such a group must offer.
    On CPUs our own engine has as many threads as `tensor`, and reserves so many cores.
    With `spot` each entry has a market; a model on both is a pool of NAME-stable and NAME-spot.
    """
    write = _on_cpus if is_cpus else _on_gpus
    at = markets(groups) if spot else ["any"] * len(groups)
    entries = list[Entry]()
    for index, model in enumerate(models):
        made: dict[str, Entry] = {}
        for market in ("any", "stable", "spot"):
            held = [
                group
                for group, its in zip(groups, at, strict=True)
                if its == market and index in group.models
            ]
            if held:
                made[market] = _in_market(write(index, held, models), market)
        entries += _pool(model.name, made) if "spot" in made else made.values()
    return {"models": entries}


def _in_market(entry: Entry, market: str) -> Entry:
    resources = entry["resources"]
    if market == "any" or not isinstance(resources, Mapping):
        return entry
    return {**entry, "resources": {**resources, "market": market}}


def _pool(name: str, by_market: Mapping[str, Entry]) -> list[Entry]:
    """Its members come first: `spot` is never alone."""
    entries = [{**entry, "name": f"{name}-{market}"} for market, entry in by_market.items()]
    members = [
        {"model": entry["name"], "weight": float(str(entry["replicas"]))} for entry in entries
    ]
    return [*entries, {"name": name, "engine": "pool", "options": {"members": members}}]


def _on_gpus(index: int, groups: Sequence[Group], models: Sequence[Model]) -> Entry:
    group, sharing = groups[0], _most_sharing(groups)
    arguments: list[str] = []
    if group.pipeline > 1:
        arguments += [PIPELINE, str(group.pipeline)]
    if sharing > 1:
        arguments += [MEMORY, f"{_memory_share(index, groups, models):.3f}"]
    options: dict[str, object] = {"tensor_parallel_size": group.tensor}
    if arguments:
        options["server_args"] = arguments
    return _entry(models[index], "vllm", options, groups, _resources(group, sharing))


def _on_cpus(index: int, groups: Sequence[Group], models: Sequence[Model]) -> Entry:
    threads = groups[0].tensor
    cpus = round(threads / _most_sharing(groups), 4)
    return _entry(models[index], "torch", {"num_threads": threads}, groups, {"cpus": cpus})


def _entry(
    model: Model,
    engine: str,
    options: Mapping[str, object],
    groups: Sequence[Group],
    resources: Mapping[str, object],
) -> Entry:
    return {
        "name": model.name,
        "path": model.path,
        "engine": engine,
        "options": options,
        "replicas": len(groups),
        "resources": resources,
    }


def _most_sharing(groups: Sequence[Group]) -> int:
    """Models in one of them."""
    return max(len(group.models) for group in groups)


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
    return f"{SHARED}{group.tensor}x{group.pipeline}"


def markets(groups: Placement) -> list[str]:
    """`stable` for a group that is the first to hold some model, else `spot`: what may be taken
    away is never the only place of a model."""
    seen: set[int] = set()
    made: list[str] = []
    for group in groups:
        made.append("spot" if set(group.models) <= seen else "stable")
        seen |= set(group.models)
    return made
