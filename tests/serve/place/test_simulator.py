"""Continuous batching in events, against sums that can be done by hand and a plain loop."""

import numpy as np
import pytest

from apps.serve.place.arrivals import Arrivals, gamma
from apps.serve.place.placement import Cluster, Group, Model
from apps.serve.place.simulator import EngineLimits, Served, Slo, simulate
from apps.serve.place.speed import Shape, Speed

SPEED = Speed(step_s=0.01, sequence_s=0.001, context_s=1e-6, prompt_s=1e-4)
SHAPE = Shape(weights_bytes=10e9, kv_bytes_per_token=5e5, speeds={1: SPEED, 2: SPEED}, source="")
CLUSTER = Cluster(num_gpus=4, memory_bytes=80e9)
MODELS = [Model(name="a", path="a", shape=SHAPE), Model(name="b", path="b", shape=SHAPE)]
ALONE = (Group(tensor=1, pipeline=1, models=(0,)),)


def requests(*rows: tuple[float, int, int, int]) -> Arrivals:
    """(second, prompt, output, model)"""
    at_s, prompts, outputs, models = zip(*rows, strict=True)
    return Arrivals(
        at_s=np.array(at_s, dtype=np.float64),
        prompt_tokens=np.array(prompts),
        output_tokens=np.array(outputs),
        model=np.array(models),
    )


def test_one_request_takes_its_prompt_and_its_tokens() -> None:
    served = simulate(ALONE, MODELS, CLUSTER, requests((5.0, 100, 4, 0)))
    assert served.first_s[0] == pytest.approx(0.01 + 100e-4)
    steps_s = sum(0.01 + 0.001 + tokens * 1e-6 for tokens in (101, 102, 103))
    assert served.last_s[0] == pytest.approx(served.first_s[0] + steps_s)
    assert served.tpot_s[0] == pytest.approx(steps_s / 3)


def test_a_model_that_stands_nowhere_is_never_served() -> None:
    served = simulate(ALONE, MODELS, CLUSTER, requests((0.0, 10, 2, 1)))
    assert served.first_s[0] == np.inf and not served.attains(Slo(ttft_s=9, tpot_s=9))[0]


def token_by_token(arrivals: Arrivals, limits: EngineLimits) -> Served:
    """The same engine, one step after another and every request a list of its own."""
    number = arrivals.num_requests
    first, last = np.full(number, np.inf), np.full(number, np.inf)
    waiting, running, taking, now = list(range(number)), dict[int, int](), list[int](), 0.0
    while waiting or running or taking:
        if not running and not taking and arrivals.at_s[waiting[0]] > now:
            now = float(arrivals.at_s[waiting[0]])
        room, piece_tokens, begun = limits.prompt_piece_tokens, 0, list[int]()
        while room and len(running) + len(begun) < limits.max_running:
            if not taking:
                if not waiting or arrivals.at_s[waiting[0]] > now:
                    break
                taking = [waiting.pop(0), 0]
            piece = min(int(arrivals.prompt_tokens[taking[0]]) - taking[1], room)
            taking[1] += piece
            room, piece_tokens = room - piece, piece_tokens + piece
            if taking[1] == arrivals.prompt_tokens[taking[0]]:
                begun.append(taking[0])
                taking = []
        context = sum(int(arrivals.prompt_tokens[r]) + made for r, made in running.items())
        now += SPEED.seconds(len(running), context, piece_tokens)
        for request in list(running):
            running[request] += 1
            if running[request] == arrivals.output_tokens[request]:
                last[request] = now
                del running[request]
        for request in begun:
            first[request] = now
            running[request] = 1
            if arrivals.output_tokens[request] == 1:
                last[request] = now
                del running[request]
    return Served(
        first_s=first - arrivals.at_s,
        last_s=last - arrivals.at_s,
        output_tokens=arrivals.output_tokens,
    )


@pytest.mark.parametrize("seed", range(5))
def test_rounds_taken_many_at_once_are_those_taken_one_by_one(seed: int) -> None:
    limits = EngineLimits(max_running=8, prompt_piece_tokens=128)
    arrivals = gamma(6, 30, seed, cv=3, prompt=200, output=30)
    fast = simulate(ALONE, MODELS, CLUSTER, arrivals, limits)
    slow = token_by_token(arrivals, limits)
    assert fast.last_s == pytest.approx(slow.last_s, rel=1e-6, abs=1e-6)
    assert fast.first_s == pytest.approx(slow.first_s, rel=1e-6, abs=1e-6)


def test_memory_for_conversations_bounds_how_many_run() -> None:
    """26 GB a request, 62 GB free: two at once, so the third waits for one to end."""
    rows = [(0.0, 100, 51_900, 0)] * 3
    served = simulate(ALONE, MODELS, CLUSTER, requests(*rows))
    assert served.first_s[1] < 0.1 and served.first_s[2] > served.last_s[0] - 0.1


def test_a_burst_for_one_model_uses_every_stage_of_a_pipeline() -> None:
    burst = requests(*[(0.0, 300, 60, 0)] * 40)
    piped = simulate((Group(tensor=1, pipeline=2, models=(0, 1)),), MODELS, CLUSTER, burst)
    apart = (Group(tensor=1, pipeline=1, models=(0,)), Group(tensor=1, pipeline=1, models=(1,)))
    alone = simulate(apart, MODELS, CLUSTER, burst)
    assert piped.last_s.max() < 0.7 * alone.last_s.max()


def test_models_that_share_gpus_take_turns() -> None:
    one = simulate(ALONE, MODELS, CLUSTER, requests((0.0, 10, 100, 0)))
    shared = (Group(tensor=1, pipeline=1, models=(0, 1)),)
    both = simulate(shared, MODELS, CLUSTER, requests((0.0, 10, 100, 0), (0.0, 10, 100, 1)))
    assert both.last_s[0] == pytest.approx(2 * one.last_s[0], rel=0.05)
