import asyncio
import pickle
import threading

import pytest

from apps.serve.engine.protocol import (
    Grammar,
    Outbox,
    Request,
    RequestError,
    SamplingParams,
    Step,
    generate,
)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_p": 1.5},
        {"top_k": 1.5},
        {"max_tokens": -1},
        {"max_tokens": True},
        {"seed": 2**63},
        {"logprobs": 21},
        {"logit_bias": {1: 101.0}},
        {"logit_bias": dict.fromkeys(range(2000), 0.0)},
        {"stop_token_ids": tuple(range(100))},
    ],
)
def test_sampling_values_out_of_bounds_are_refused_by_name(wrong) -> None:
    with pytest.raises(RequestError) as caught:
        SamplingParams(**wrong)
    assert next(iter(wrong)) in str(caught.value)


def test_a_huge_grammar_is_refused() -> None:
    with pytest.raises(RequestError, match="65,536 bytes"):
        Grammar(kind="json_schema", text="x" * 70_000)


def test_requests_and_errors_cross_process_boundaries() -> None:
    request = Request(id="a", prompt_ids=(1, 2), params=SamplingParams(logit_bias={3: 1.0}))
    assert pickle.loads(pickle.dumps(request)) == request
    error = pickle.loads(pickle.dumps(RequestError("no", "stop", "bad_stop")))
    assert (str(error), error.param, error.code) == ("no", "stop", "bad_stop")


async def test_an_outbox_merges_steps_for_a_slow_reader_and_ends_with_the_error() -> None:
    outbox = Outbox()

    def engine() -> None:
        outbox.put([Step("a", (1,)), Step("b", (2,))])
        outbox.put([Step("a", (3,))])
        outbox.fail(RuntimeError("dead"))

    thread = threading.Thread(target=engine)
    thread.start()
    thread.join()
    await asyncio.sleep(0)
    assert [step.token_ids for step in await anext(outbox)] == [(1,), (2,), (3,)]
    with pytest.raises(RuntimeError, match="dead"):
        await anext(outbox)


async def test_leaving_a_stream_early_cancels_the_request() -> None:
    cancelled = []

    class Endless:
        async def submit(self, request: Request, outbox: Outbox) -> None:
            outbox.put([Step(request.id, (1,)), Step(request.id, (2,))])

        def cancel(self, request_id: str) -> None:
            cancelled.append(request_id)

    stream = generate(Endless(), Request(id="r", prompt_ids=(1,), params=SamplingParams()))
    assert (await anext(stream)).token_ids == (1,)
    await stream.aclose()
    assert cancelled == ["r"]
