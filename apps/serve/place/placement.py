"""What is decided: groups of GPUs, how each is parallel, and which models it holds."""

from collections.abc import Sequence
from dataclasses import dataclass

from apps.serve.place.speed import Shape

MEMORY_SHARE = 0.9
"""Of a GPU's memory; the rest is the runtime's and activations'."""
LEAST_KV_TOKENS = 8192
"""A model is not put where it could hold less than this many tokens of conversations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """One model to place."""

    name: str
    path: str
    shape: Shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """GPUs of one kind, or cores of CPUs, on which our own engine runs: a core is a GPU then, and
    `tensor` the threads of a replica."""

    num_gpus: int
    memory_bytes: float
    """of each"""
    is_cpus: bool = False
    """without pipelines, which our own engine does not have"""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Group:
    """GPUs that hold the same models, each split over all of them.

    `pipeline` stages of `tensor` GPUs each. A pipeline of p stages has p batches under way at once:
    it is as fast as p groups of `tensor` GPUs, with one queue and one copy of the weights.
    """

    tensor: int
    pipeline: int
    models: tuple[int, ...]
    """Indices, ascending."""

    @property
    def num_gpus(self) -> int:
        return self.tensor * self.pipeline

    def holding(self, models: Sequence[int]) -> "Group":
        return Group(tensor=self.tensor, pipeline=self.pipeline, models=tuple(sorted(models)))


Placement = tuple[Group, ...]
"""Sorted; GPUs that stand in no group are left free."""


def placement(groups: Sequence[Group]) -> Placement:
    """Without empty groups, in one order: equal placements are equal."""
    return tuple(sorted(group for group in groups if group.models))


def kv_bytes(group: Group, models: Sequence[Model], cluster: Cluster) -> float:
    """Memory left for conversations; negative where the weights alone are too much."""
    weights = sum(models[index].shape.weights_bytes for index in group.models)
    return group.num_gpus * cluster.memory_bytes * MEMORY_SHARE - weights


def num_replicas(groups: Sequence[Group], index: int) -> int:
    """Of the model with that index."""
    return sum(index in group.models for group in groups)


def least_bytes(model: Model) -> float:
    """Its weights and room for some conversations."""
    return model.shape.weights_bytes + LEAST_KV_TOKENS * model.shape.kv_bytes_per_token


def fits(group: Group, models: Sequence[Model], cluster: Cluster) -> bool:
    """Weights, room for some conversations of every model, and a known speed."""
    least = sum(least_bytes(models[index]) for index in group.models)
    known = all(group.tensor in models[index].shape.speeds for index in group.models)
    is_runnable = group.pipeline == 1 or not cluster.is_cpus
    return known and is_runnable and least <= group.num_gpus * cluster.memory_bytes * MEMORY_SHARE


def is_servable(groups: Placement) -> bool:
    """Whether one YAML can say it: all replicas of a model are parallel in one way."""
    seen: dict[int, tuple[int, int]] = {}
    for group in groups:
        way = (group.tensor, group.pipeline)
        for index in group.models:
            if seen.setdefault(index, way) != way:
                return False
    return True
