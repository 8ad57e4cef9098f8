"""A placement in sentences."""

from collections.abc import Iterator, Mapping

from apps.serve.place.output import markets, shared_name
from apps.serve.place.placement import Placement, num_replicas
from apps.serve.place.search import Problem, Score, fits_alone


def explanation(
    problem: Problem, contenders: Mapping[str, Placement], best: Placement, *, is_optimal: bool
) -> Iterator[str]:
    """Why this one: every group, every model, and what the others would have given."""
    total, is_cpus = problem.arrivals.num_requests, problem.cluster.is_cpus
    how = "every placement was tried" if is_optimal else "local search"
    yield f"{total:,} requests, {problem.arrivals.seconds / 60:.1f} min; {how}"
    for name, groups in {**contenders, "proposed": best}.items():
        used = _places(sum(group.num_gpus for group in groups), is_cpus)
        yield _line(name, problem.score(groups), total, used)
    for number, (group, market) in enumerate(zip(best, markets(best), strict=True)):
        names = ", ".join(problem.models[index].name for index in group.models)
        way = f"{'threads' if is_cpus else 'tensor'} {group.tensor}"
        if group.pipeline > 1:
            way += f", pipeline {group.pipeline}"
        yield f"group {number}: {_places(group.num_gpus, is_cpus)} ({way}), {market}: {names}"
        if group.num_gpus > 1 and len(group.models) > 1 and not is_cpus:
            yield f"  shared over several GPUs: a Ray node of its own offers {shared_name(group)}"
    yield from _models(problem, best)


def left_out(problem: Problem, best: Placement) -> Iterator[str]:
    """Why a model that was to be placed has no place."""
    asked = problem.requests()
    for index, model in enumerate(problem.models):
        if num_replicas(best, index):
            continue
        if not fits_alone(problem, index):
            why = f"{_places(problem.cluster.num_gpus, problem.cluster.is_cpus)} do not hold it"
        elif not asked[index]:
            why = "nobody asks for it in this traffic"
        else:
            why = "others keep more requests within the SLO so, or are answered sooner"
        yield f"without {model.name}: {why}"


def _line(name: str, score: Score, total: int, used: str) -> str:
    share = score.attained / total
    return f"{name}: {share:.1%} within the SLO, {-score.minus_latency_s:.1f} s mean, {used}"


def _places(count: int, is_cpus: bool) -> str:
    return f"{count} {'cores' if is_cpus else 'GPUs'}"


def _models(problem: Problem, best: Placement) -> Iterator[str]:
    asked, unserved = problem.requests(), problem.score(best).unserved
    for index, model in enumerate(problem.models):
        replicas = num_replicas(best, index)
        late = unserved[index] / asked[index] if asked[index] else 0.0
        yield (
            f"{model.name}: {asked[index] / problem.arrivals.num_requests:.0%} of the requests, "
            f"{replicas} replicas, {late:.1%} late"
        )
