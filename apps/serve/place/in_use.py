"""What a running service's YAML says of places, and the same YAML with other places in it."""

from collections.abc import Mapping, Sequence
from typing import cast

from apps.common.errors import ConfigError
from apps.common.files import config as configs
from apps.serve.config import ModelConfig, ServeConfig
from apps.serve.engine.config import PoolConfig
from apps.serve.place.output import MEMORY, PIPELINE, SHARED, Entry
from apps.serve.place.placement import Group, Placement, placement

Served = Mapping[str, object]
"""The YAML of a running service, as it was written."""
_OF_PLACES = ("tensor_parallel_size", "num_threads")
_SHARED_BY_A_POOL = ("aliases", "limits")
"""What a model keeps when it becomes a pool; all else is its members'."""


def check(served: ServeConfig, names: Sequence[str], *, is_cpus: bool) -> None:
    """ConfigError where no placement of these models could be written into what is served."""
    local = {entry.name for entry in served.models if entry.is_local}
    owners = _owners(served, names)
    for entry in sorted(served.models, key=lambda entry: entry.engine != "pool"):
        engine = entry.engine_config(entry.path)
        if entry.name not in owners:
            continue
        if isinstance(engine, PoolConfig):
            if engine.joinable or not {member.model for member in engine.members} <= local:
                raise ConfigError(
                    f"The pool {entry.name!r} has members elsewhere, and nobody knows their part "
                    "of the traffic; leave it out of the models to place."
                )
        elif entry.engine != ("torch" if is_cpus else "vllm"):
            raise ConfigError(
                f"Model {entry.name!r} is served by {entry.engine}, but `place` puts vLLM on GPUs "
                "and torch, our own engine, on cores (--gpus 8xCPU); give --gpus of its kind."
            )
        elif entry.autoscaling is not None:
            raise ConfigError(
                f"Model {entry.name!r} has autoscaling, which chooses its replicas by itself; take "
                "that out, or leave the model out of those to place."
            )


def in_use(served: ServeConfig, names: Sequence[str]) -> Placement:
    """The placement that such a YAML says, of these models; others are left out.

    Which models share GPUs is Ray's choice when they start. So those that may are put together in
    their order: halves of A, A, B and C are groups of A and B, and of A and C.
    """
    owners = _owners(served, names)
    held: list[tuple[Group, float]] = []
    for entry in served.models:
        if entry.name in owners and entry.is_local:
            for _ in range(entry.replicas):
                _put(held, names.index(owners[entry.name]), entry)
    return placement([group for group, _ in held])


def replaced(served: Served, names: Sequence[str], placed: Sequence[Entry]) -> dict[str, object]:
    """The YAML that is served, these models standing as `placed` says. What tells nothing of places
    stays as it was written: options, limits, keys, the page, other models."""
    old_owners = _owners(configs.from_dict(ServeConfig, served), names)
    new_owners = _owners(configs.from_dict(ServeConfig, {"models": placed}), names)
    written = cast(Sequence[Entry], served["models"])
    old, new = _by_owner(written, old_owners), _by_owner(placed, new_owners)
    models = list[Entry]()
    for entry in written:
        owner = old_owners.get(str(entry["name"]))
        if owner is None:
            models.append(entry)
        elif owner in new:
            models += [_merged(old[owner], its) for its in new.pop(owner)]
    return {**served, "models": [*models, *(entry for its in new.values() for entry in its)]}


def _owners(served: ServeConfig, names: Sequence[str]) -> dict[str, str]:
    """Of each entry that belongs to a model of `names`, that model: itself, or a pool with it."""
    owners = {name: name for name in names}
    for entry in served.models:
        engine = entry.engine_config(entry.path)
        if isinstance(engine, PoolConfig) and entry.name in names:
            owners |= {member.model: entry.name for member in engine.members}
    return owners


def _by_owner(entries: Sequence[Entry], owners: Mapping[str, str]) -> dict[str, list[Entry]]:
    made: dict[str, list[Entry]] = {}
    for entry in entries:
        if owner := owners.get(str(entry["name"])):
            made.setdefault(owner, []).append(entry)
    return made


def _merged(old: Sequence[Entry], new: Entry) -> Entry:
    """The entry `new` with what a model's old entries say beside places."""
    pool = next((entry for entry in old if entry.get("engine") == "pool"), {})
    local = [entry for entry in old if entry.get("engine") != "pool"]
    like = next((entry for entry in local if entry["name"] == new["name"]), local[0])
    shared = {key: (pool or like)[key] for key in _SHARED_BY_A_POOL if key in (pool or like)}
    if new["engine"] == "pool":
        return {**(pool or shared), **new}
    is_member = str(new["name"]) != str((pool or like)["name"])
    kept = {key: value for key, value in like.items() if not (is_member and key == "aliases")}
    if pool and not is_member:
        kept |= shared
    resources = dict(_mapping(like, "resources"))
    if pool:
        resources.pop("market", None)
    return {**kept, **new, "path": like["path"]} | {
        "options": _options(_mapping(like, "options"), _mapping(new, "options")),
        "resources": _resources(resources, _mapping(new, "resources")),
    }


def _mapping(entry: Entry, key: str) -> Mapping[str, object]:
    return cast(Mapping[str, object], entry.get(key, {}))


def _options(old: Mapping[str, object], new: Mapping[str, object]) -> dict[str, object]:
    kept = {key: value for key, value in old.items() if key not in (*_OF_PLACES, "server_args")}
    given, _ = _read_arguments(old)
    arguments = [*given, *cast(Sequence[str], new.get("server_args", ()))]
    return {**kept, **new, **({"server_args": arguments} if arguments else {})}


def _read_arguments(options: Mapping[str, object]) -> tuple[list[str], dict[str, str]]:
    """vLLM's arguments that say nothing of places, as they were written, and the values of the
    flags that do. vLLM takes `--flag value` and `--flag=value`, `_` for `-`, and the last of two:

        --seed=3 -pp 4 --pipeline_parallel_size=2    ->    [--seed=3], {PIPELINE: 2}
    """
    others: list[str] = []
    values: dict[str, str] = {}
    arguments = iter(cast(Sequence[str], options.get("server_args", ())))
    for argument in arguments:
        written, equals, value = argument.partition("=")
        flag = PIPELINE if written == "-pp" else written.replace("_", "-")
        if flag in (PIPELINE, MEMORY):
            values[flag] = value if equals else next(arguments, "")
        else:
            others.append(argument)
    return others, values


def _resources(old: Mapping[str, object], new: Mapping[str, object]) -> dict[str, object]:
    custom = {
        name: amount
        for name, amount in cast(Mapping[str, object], old.get("custom", {})).items()
        if not name.startswith(SHARED)
    } | dict(cast(Mapping[str, object], new.get("custom", {})))
    kept = {key: value for key, value in old.items() if key not in ("gpus", "custom")}
    return {**kept, **new, **({"custom": custom} if custom else {})}


def _put(held: list[tuple[Group, float]], index: int, entry: ModelConfig) -> None:
    """Into the first group of its kind with room, or a new one; with each, the share taken."""
    if entry.engine == "torch":
        pipeline, tensor = 1, int(entry.options.get("num_threads", 1))
        part = entry.resources.cpus / tensor
    else:
        _, values = _read_arguments(entry.options)
        pipeline = int(values.get(PIPELINE, 1))
        tensor = int(entry.options.get("tensor_parallel_size", 1))
        custom = entry.resources.custom
        shared = (amount for name, amount in custom.items() if name.startswith(SHARED))
        part = max([entry.resources.gpus, *shared])
    share = min(part or 1.0, 1.0)
    for number, (group, taken) in enumerate(held):
        is_alike = (group.tensor, group.pipeline) == (tensor, pipeline)
        if is_alike and index not in group.models and taken + share <= 1.001:
            held[number] = (group.holding([*group.models, index]), taken + share)
            return
    held.append((Group(tensor=tensor, pipeline=pipeline, models=(index,)), share))
