"""Where the models should stand: even replicas, AlpaServe's greedy, local search, every placement.

AlpaServe (Li et al., OSDI '23, arXiv 2302.11665): for every size of group and every way to make it
parallel, all groups alike, begin empty; give the model with most unserved requests a place in the
group that holds least work, simulate, and go on until nothing fits; keep the best placement seen.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from apps.serve.place.arrivals import Arrivals
from apps.serve.place.placement import (
    Cluster,
    Group,
    Model,
    Placement,
    fits,
    is_servable,
    num_replicas,
    placement,
)
from apps.serve.place.simulator import EngineLimits, Served, Slo, simulate

MOST_ENUMERATED = 2000
"""Instances with at most so many placements are searched whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Better is greater: more of the models that must stand somewhere, then more requests within
    the SLO, then less waiting."""

    held: int
    attained: int
    minus_latency_s: float
    unserved: tuple[int, ...] = field(compare=False)
    """Requests of each model that do not get what they must."""

    def __gt__(self, other: "Score") -> bool:
        return self._rank > other._rank

    @property
    def _rank(self) -> tuple[int, int, float]:
        return self.held, self.attained, self.minus_latency_s


@dataclass(kw_only=True, slots=True)
class Problem:
    """What is to be placed, and what it must bear. Simulations are remembered."""

    models: Sequence[Model]
    cluster: Cluster
    arrivals: Arrivals
    slo: Slo
    limits: EngineLimits = field(default_factory=EngineLimits)
    must_hold: frozenset[int] = frozenset()
    """Models that are not given up for others, though nobody may ask for them just now."""
    simulations: int = 0
    _known: dict[Placement, Score] = field(default_factory=dict[Placement, Score])

    def score(self, groups: Placement) -> Score:
        if groups not in self._known:
            self.simulations += 1
            served = simulate(groups, self.models, self.cluster, self.arrivals, self.limits)
            self._known[groups] = self._scored(groups, served)
        return self._known[groups]

    def _scored(self, groups: Placement, served: Served) -> Score:
        attains, late_s = served.attains(self.slo), np.minimum(served.last_s, 600.0)
        lacking = np.bincount(self.arrivals.model[~attains], minlength=len(self.models))
        return Score(
            held=len(self.must_hold & {index for group in groups for index in group.models}),
            attained=int(attains.sum()),
            minus_latency_s=-float(late_s.mean()),
            unserved=tuple(lacking.tolist()),
        )

    def requests(self) -> list[int]:
        """How often each model is asked."""
        return np.bincount(self.arrivals.model, minlength=len(self.models)).tolist()

    def may(self, group: Group) -> bool:
        return not group.models or fits(group, self.models, self.cluster)


def even(problem: Problem) -> Placement:
    """The same number of replicas of every model, each on the fewest GPUs that hold it, spread
    evenly; models share GPUs only where there are more models than places."""
    cluster, count = problem.cluster, len(problem.models)
    degree = max(_least_degree(problem, index) for index in range(count))
    places: list[list[int]] = [[] for _ in range(cluster.num_gpus // degree)]
    if not places:
        return ()
    replicas = max(len(places) // count, 1)
    wanted = [index for _ in range(replicas) for index in range(count)]
    for number, index in enumerate(wanted):
        places[number % len(places)].append(index)
    groups = [Group(tensor=degree, pipeline=1, models=tuple(sorted(set(held)))) for held in places]
    return placement([group for group in groups if problem.may(group)])


def _least_degree(problem: Problem, index: int) -> int:
    degrees = sorted(problem.models[index].shape.speeds)
    alone = (Group(tensor=degree, pipeline=1, models=(index,)) for degree in degrees)
    return next((group.tensor for group in alone if problem.may(group)), degrees[-1])


def fits_alone(problem: Problem, index: int) -> bool:
    """Whether some group of the cluster's GPUs can hold the model by itself."""
    degrees = problem.models[index].shape.speeds
    return any(
        problem.may(shape.holding([index]))
        for num_gpus in range(1, problem.cluster.num_gpus + 1)
        for shape in _shapes(num_gpus, degrees)
    )


def partitions(problem: Problem) -> Iterator[list[Group]]:
    """AlpaServe's outer loop: all groups of one size and one way to be parallel."""
    degrees = {degree for model in problem.models for degree in model.shape.speeds}
    size = 1
    while size <= problem.cluster.num_gpus:
        for tensor in sorted(degree for degree in degrees if size % degree == 0):
            empty = Group(tensor=tensor, pipeline=size // tensor, models=())
            yield [empty] * (problem.cluster.num_gpus // size)
        size *= 2


def alpaserve(problem: Problem, stop: Callable[[], bool] = lambda: False) -> Placement:
    """Greedy over group partitions; the best so far when `stop` says so."""
    best: Placement = ()
    for groups in partitions(problem):
        for seen in _filled(problem, groups):
            if best and stop():
                return best
            if not best or problem.score(seen) > problem.score(best):
                best = seen
    return best


def _filled(problem: Problem, groups: list[Group]) -> Iterator[Placement]:
    """Each placement on the way from empty to full."""
    held = list(groups)
    while True:
        seen = placement(held)
        chosen = _next(problem, held, problem.score(seen).unserved)
        if seen:
            yield seen
        if chosen is None:
            return
        number, index = chosen
        held[number] = held[number].holding([*held[number].models, index])


def _next(problem: Problem, held: list[Group], unserved: Sequence[int]) -> tuple[int, int] | None:
    """The neediest model that fits somewhere, and the group where the least work is."""
    tokens = np.bincount(
        problem.arrivals.model, weights=problem.arrivals.output_tokens,
        minlength=len(problem.models),
    )  # fmt: skip
    copies = [num_replicas(held, index) for index in range(len(problem.models))]

    def work(number: int) -> float:
        shares = (tokens[index] / copies[index] for index in held[number].models)
        return float(sum(shares)) / held[number].num_gpus

    for index in sorted(range(len(problem.models)), key=lambda index: -unserved[index]):
        if copies[index] and not unserved[index]:
            continue
        open_groups = [
            number
            for number, group in enumerate(held)
            if index not in group.models and problem.may(group.holding([*group.models, index]))
        ]
        if open_groups:
            return min(open_groups, key=work), index
    return None


def improved(problem: Problem, start: Placement, stop: Callable[[], bool]) -> Placement:
    """Hill-climbing: the first neighbour that is better, until none is or `stop` says so."""
    best = start
    found = True
    while found and not stop():
        found = False
        for neighbour in _by_need(problem, best):
            if stop():
                break
            if problem.score(neighbour) > problem.score(best):
                best, found = neighbour, True
                break
    return best


def _by_need(problem: Problem, groups: Placement) -> list[Placement]:
    """Neighbours that help the neediest models first."""
    unserved = problem.score(groups).unserved

    def gain(neighbour: Placement) -> float:
        """GPUs that stand open to the requests that go without now."""
        return sum(
            unserved[index] * _gpus(neighbour, index) / max(_gpus(groups, index), 0.5)
            for index in range(len(unserved))
        )

    return sorted(set(neighbours(problem, groups)), key=gain, reverse=True)


def _gpus(groups: Placement, index: int) -> float:
    return sum(group.num_gpus / len(group.models) for group in groups if index in group.models)


def neighbours(problem: Problem, groups: Placement) -> Iterator[Placement]:
    """One change away: a model added, removed, moved or exchanged, a group made, split, joined or
    parallel in another way. Only those that fit and that one YAML can say."""
    free = problem.cluster.num_gpus - sum(group.num_gpus for group in groups)
    for change in itertools.chain(
        _changed_models(problem, groups), _changed_groups(problem, groups, free)
    ):
        made = placement(change)
        if made != groups and all(problem.may(group) for group in made) and is_servable(made):
            yield made


def _changed_models(problem: Problem, groups: Placement) -> Iterator[list[Group]]:
    every = range(len(problem.models))
    for number, group in enumerate(groups):
        others = [*groups[:number], *groups[number + 1 :]]
        for index in every:
            if index not in group.models:
                yield [*others, group.holding([*group.models, index])]
        for index in group.models:
            rest = [held for held in group.models if held != index]
            yield [*others, group.holding(rest)]
            for other in every:
                if other not in group.models:
                    yield [*others, group.holding([*rest, other])]
    for one, two in itertools.combinations(range(len(groups)), 2):
        others = [group for number, group in enumerate(groups) if number not in (one, two)]
        for first, second in itertools.product(groups[one].models, groups[two].models):
            if first in groups[two].models or second in groups[one].models:
                continue
            left = [index for index in groups[one].models if index != first]
            right = [index for index in groups[two].models if index != second]
            yield [
                *others,
                groups[one].holding([*left, second]),
                groups[two].holding([*right, first]),
            ]


def _changed_groups(problem: Problem, groups: Placement, free: int) -> Iterator[list[Group]]:
    degrees = sorted({degree for model in problem.models for degree in model.shape.speeds})
    for tensor in degrees:
        if tensor <= free:
            for index in range(len(problem.models)):
                yield [*groups, Group(tensor=tensor, pipeline=1, models=(index,))]
    for number, group in enumerate(groups):
        others = [*groups[:number], *groups[number + 1 :]]
        for shape in _shapes(group.num_gpus, degrees):
            yield [*others, replace(shape, models=group.models)]
        if group.num_gpus > 1:
            for shape in _shapes(group.num_gpus // 2, degrees):
                half = replace(shape, models=group.models)
                yield [*others, half, half]
                yield [*others, *(half.holding([index]) for index in group.models[:2])]
    for one, two in itertools.combinations(range(len(groups)), 2):
        others = [group for number, group in enumerate(groups) if number not in (one, two)]
        both = set(groups[one].models) | set(groups[two].models)
        for shape in _shapes(groups[one].num_gpus + groups[two].num_gpus, degrees):
            yield [*others, shape.holding(sorted(both))]


def _shapes(num_gpus: int, degrees: Iterable[int]) -> Iterator[Group]:
    """Every way to make a group of so many GPUs parallel, without models."""
    for tensor in degrees:
        if num_gpus and num_gpus % tensor == 0:
            yield Group(tensor=tensor, pipeline=num_gpus // tensor, models=())


def every_placement(problem: Problem, most: int) -> list[Placement] | None:
    """All that fit and that one YAML can say; None where there are more than `most`."""
    if 2 ** len(problem.models) > most:
        return None
    degrees = sorted({degree for model in problem.models for degree in model.shape.speeds})
    subsets = [
        models
        for size in range(1, len(problem.models) + 1)
        for models in itertools.combinations(range(len(problem.models)), size)
    ]
    each = (
        replace(shape, models=models)
        for num_gpus in range(1, problem.cluster.num_gpus + 1)
        for shape in _shapes(num_gpus, degrees)
        for models in subsets
        if problem.may(replace(shape, models=models))
    )
    kinds = sorted(itertools.islice(each, most + 1))
    if len(kinds) > most:  # each is a placement by itself
        return None
    made: list[Placement] = []

    def add(groups: Placement, first: int, free: int) -> bool:
        if groups and is_servable(groups):
            made.append(groups)
        return len(made) <= most and all(
            add((*groups, kind), number, free - kind.num_gpus)
            for number, kind in enumerate(kinds[first:], first)
            if kind.num_gpus <= free
        )

    return made if add((), 0, problem.cluster.num_gpus) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The placement that is proposed, and its contenders."""

    best: Placement
    even: Placement
    greedy: Placement
    is_greedy_cut: bool
    """The time was over before it had seen every partition."""
    is_optimal: bool
    """Every placement was tried."""


def search(problem: Problem, whole: Problem, seconds: float) -> Found:
    """The best of everything that is tried, judged by the `whole` of the arrivals.

    `problem` has the busiest of them, which the search looks at again and again; what is left of
    the time goes into climbing on by the whole. Never worse than even replicas or the greedy. When
    `seconds` are over, a simulation is still ended, and each candidate judged.
    """
    begun_s = time.monotonic()

    def past(share: float) -> Callable[[], bool]:
        return lambda: time.monotonic() > begun_s + share * seconds

    replicas = even(problem)
    greedy = alpaserve(problem, past(1.0))
    is_cut = past(1.0)()
    judging_s = time.monotonic()
    best = max((replicas, greedy), key=whole.score)
    each_s = (time.monotonic() - judging_s) / max(whole.simulations, 1)
    is_optimal = False
    every = every_placement(problem, MOST_ENUMERATED)
    if every is not None and time.monotonic() + each_s * len(every) < begun_s + seconds:
        best, is_optimal = _best_of(whole, every, best, past(1.0))
    if not is_optimal:
        starts = sorted({replicas, greedy}, key=lambda groups: -problem.score(groups).attained)
        climbed = [improved(problem, start, past(0.5)) for start in starts]
        best = improved(whole, max((best, *climbed), key=whole.score), past(1.0))
    return Found(
        best=best, even=replicas, greedy=greedy, is_greedy_cut=is_cut, is_optimal=is_optimal
    )


def _best_of(
    problem: Problem, candidates: Sequence[Placement], best: Placement, stop: Callable[[], bool]
) -> tuple[Placement, bool]:
    """The best of `best` and the candidates, and whether there was time for all of them."""
    for groups in candidates:
        if stop():
            return best, False
        best = max(best, groups, key=problem.score)
    return best, True
