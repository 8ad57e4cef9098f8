"""Continuous batching in events, against sums that can be done by hand and a plain loop."""

from dataclasses import replace

import numpy as np
import pytest

from apps.serve.place.arrivals import Arrivals, gamma
from apps.serve.place.placement import Cluster, Group, Model
from apps.serve.place.simulator import EngineLimits, Served, Slo, simulate
from apps.serve.place.speed import Shape, Speed

SPEED = Speed(step_s=0.01, sequence_s=0.001, context_s=1e-6, prompt_s=1e-4)
MEASURED = replace(
    SPEED,
    more_context_s=((400.0, 1e-5), (900.0, 3e-5)),
    attention_s=1e-6,
    ended_s=1e-5,
    idle_s=((0.05, 0.002), (0.5, 0.03)),
)
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


def test_the_first_step_after_a_pause_is_slower() -> None:
    """As long a pause as the table has, or longer, and one that lies between two of its entries."""
    model = replace(MODELS[0], shape=replace(SHAPE, speeds={1: MEASURED}))
    ends_s = 0.03 + 0.01 + 1e-4 + 1e-6 + 2e-5  # cold, a step, a prompt token, its own, the end
    asked = requests((5.0, 1, 1, 0), (5.0 + ends_s + 0.275, 1, 1, 0))
    served = simulate(ALONE, [model], CLUSTER, asked)
    assert served.last_s[0] == pytest.approx(ends_s)
    assert served.last_s[1] == pytest.approx(ends_s - 0.03 + 0.016)


def test_a_model_that_stands_nowhere_is_never_served() -> None:
    served = simulate(ALONE, MODELS, CLUSTER, requests((0.0, 10, 2, 1)))
    assert served.first_s[0] == np.inf and not served.attains(Slo(ttft_s=9, tpot_s=9))[0]


def token_by_token(arrivals: Arrivals, limits: EngineLimits, speed: Speed) -> Served:
    """The same engine, one step after another and every request a list of its own."""
    number = arrivals.num_requests
    first, last = np.full(number, np.inf), np.full(number, np.inf)
    waiting, running, taking, now = list(range(number)), dict[int, int](), list[int](), 0.0
    pause = np.inf
    while waiting or running or taking:
        if not running and not taking and arrivals.at_s[waiting[0]] > now:
            pause += float(arrivals.at_s[waiting[0]]) - now
            now = float(arrivals.at_s[waiting[0]])
        room, piece_tokens, begun = limits.prompt_piece_tokens, 0, list[int]()
        attended = 0
        while room and len(running) + len(begun) < limits.max_running:
            if not taking:
                if not waiting or arrivals.at_s[waiting[0]] > now:
                    break
                taking = [waiting.pop(0), 0]
            piece = min(int(arrivals.prompt_tokens[taking[0]]) - taking[1], room)
            attended += sum(range(taking[1] + 1, taking[1] + piece + 1))
            taking[1] += piece
            room, piece_tokens = room - piece, piece_tokens + piece
            if taking[1] == arrivals.prompt_tokens[taking[0]]:
                begun.append(taking[0])
                taking = []
        context = sum(int(arrivals.prompt_tokens[r]) + made for r, made in running.items())
        now += speed.seconds(len(running), context, piece_tokens, attended)
        now, pause = now + speed.cold_s(pause), 0.0
        made = {request: tokens + 1 for request, tokens in running.items()}
        made |= dict.fromkeys(begun, 1)
        ended = {r for r, tokens in made.items() if tokens == arrivals.output_tokens[r]}
        now += speed.ended_s * sum(int(arrivals.prompt_tokens[r]) + made[r] for r in ended)
        first[begun], last[list(ended)] = now, now
        running = {r: tokens for r, tokens in made.items() if r not in ended}
    return Served(
        first_s=first - arrivals.at_s,
        last_s=last - arrivals.at_s,
        output_tokens=arrivals.output_tokens,
    )


@pytest.mark.parametrize("speed", [SPEED, MEASURED], ids=["computed", "measured"])
@pytest.mark.parametrize("seed", range(5))
def test_rounds_taken_many_at_once_are_those_taken_one_by_one(seed: int, speed: Speed) -> None:
    limits = EngineLimits(max_running=8, prompt_piece_tokens=128)
    arrivals = gamma(6, 30, seed, cv=3, prompt=200, output=30)
    model = replace(MODELS[0], shape=replace(SHAPE, speeds={1: speed}))
    fast = simulate(ALONE, [model], CLUSTER, arrivals, limits)
    slow = token_by_token(arrivals, limits, speed)
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
