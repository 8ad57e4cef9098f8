import asyncio
import dataclasses
import random
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaForCausalLM

from apps.serve.engine.config import TorchConfig
from apps.serve.engine.llama.kv_cache import CHUNK
from apps.serve.engine.llama.model_folder import Shape
from apps.serve.engine.protocol import (
    EngineDeadError,
    Grammar,
    Outbox,
    OverloadedError,
    Request,
    RequestError,
    SamplingParams,
    generate,
)
from apps.serve.engine.torch.engine import TorchEngine, default_kv_tokens
from tests.serve.engine.llamas import EOS

GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)


@asynccontextmanager
async def started(path: str, **settings):
    engine = TorchEngine(TorchConfig(path=path, **settings))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def prompts(count: int, seed: int = 0) -> list[tuple[int, ...]]:
    rng = random.Random(seed)
    return [tuple(rng.randrange(2, 512) for _ in range(rng.randrange(3, 90))) for _ in range(count)]


async def collect(engine, prompt, params=GREEDY, *, id="r", generated=()) -> list:
    request = Request(id=id, prompt_ids=prompt, params=params, generated_ids=generated)
    return [step async for step in generate(engine, request)]


async def answer(engine, prompt, params=GREEDY, **kwargs) -> list[int]:
    return [t for step in await collect(engine, prompt, params, **kwargs) for t in step.token_ids]


async def answers(engine, many, params=GREEDY) -> list[list[int]]:
    return await asyncio.gather(
        *(answer(engine, prompt, params, id=str(i)) for i, prompt in enumerate(many))
    )


async def test_greedy_answers_equal_transformers_generate_alone_and_in_a_batch(tiny_llama) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_llama)
    expected = []
    for prompt in (many := prompts(12)):
        ids = torch.tensor([prompt])
        output = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24,
            eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        expected.append(output[0, len(prompt) :].tolist())
    async with started(tiny_llama, prefill_chunk_tokens=48) as engine:
        assert [await answer(engine, prompt) for prompt in many] == expected
        assert await answers(engine, many) == expected


async def test_every_arrangement_of_heads_gives_the_same_tokens(llama_of_any_shape) -> None:
    prompt = tuple(range(2, 150))
    model = LlamaForCausalLM.from_pretrained(llama_of_any_shape)
    ids = torch.tensor([prompt])
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    async with started(llama_of_any_shape, prefill_chunk_tokens=31) as engine:
        assert await answer(engine, prompt, params) == output[0, len(prompt) :].tolist()
        for cut in range(1, 12, 3):
            done = tuple(output[0, len(prompt) : len(prompt) + cut].tolist())
            rest = await answer(engine, prompt, params, generated=done)
            assert [*done, *rest] == output[0, len(prompt) :].tolist()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_batch_chunking_prefix_reuse_and_moving_change_nothing(
    tiny_llama, temperature
) -> None:
    params = SamplingParams(temperature=temperature, max_tokens=40, ignore_eos=True, seed=11)
    many = prompts(20, seed=1)
    shared = tuple(range(2, 130))
    many += [shared + prompt for prompt in many[:4]]
    async with started(tiny_llama, prefix_cache=False, prefill_chunk_tokens=512) as plain:
        expected = [await answer(plain, prompt, params) for prompt in many]
    async with started(tiny_llama, prefill_chunk_tokens=17, max_running=7) as engine:
        assert await answers(engine, many, params) == expected
        assert await answers(engine, many, params) == expected
        assert engine.metrics()["cached_tokens_total"] > 1000
        for prompt, whole in zip(many[:6], expected, strict=False):
            for cut in (1, 13, 39):
                rest = await answer(engine, prompt, params, generated=tuple(whole[:cut]))
                assert whole[:cut] + rest == whole


async def test_a_prompt_is_scored_as_transformers_does_and_nothing_else_changes(
    tiny_llama,
) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_llama)
    many = prompts(6, seed=5)
    plain = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, logprobs=2)
    scoring = dataclasses.replace(plain, prompt_logprobs=True)
    async with started(tiny_llama, prefill_chunk_tokens=17, max_running=4) as engine:
        expected = [await collect(engine, prompt, plain) for prompt in many]
        found = await asyncio.gather(
            *(collect(engine, p, scoring, id=f"s{i}") for i, p in enumerate(many)),
            *(collect(engine, p, plain, id=f"p{i}") for i, p in enumerate(many)),
        )
    for prompt, before, scored, beside in zip(many, expected, found[:6], found[6:], strict=True):
        with torch.inference_mode():
            logprobs = model(torch.tensor([prompt])).logits[0].log_softmax(-1)
        ours = scored[0].prompt_logprobs
        theirs = logprobs[range(len(prompt) - 1), prompt[1:]]
        assert torch.allclose(torch.tensor([one.logprob for one in ours]), theirs, atol=1e-4)
        assert [one.top[0][0] for one in ours] == logprobs[:-1].argmax(-1).tolist()
        assert not any(step.prompt_logprobs for step in [*scored[1:], *beside])
        for answer_steps in (scored, beside):
            assert [s.token_ids for s in answer_steps] == [s.token_ids for s in before]
            assert [s.logprobs for s in answer_steps] == [s.logprobs for s in before]


async def test_the_stream_ends_with_one_finish_reason(tiny_llama) -> None:
    async with started(tiny_llama) as engine:
        steps = await collect(engine, (5, 6, 7))
        assert [s.finish_reason for s in steps] == [None] * 23 + ["length"]
        tokens = [s.token_ids[0] for s in steps]
        stop = tokens[10]
        params = SamplingParams(temperature=0, max_tokens=24, stop_token_ids=(stop,))
        steps = await collect(engine, (5, 6, 7), params)
        assert [s.token_ids[0] for s in steps] == tokens[: tokens.index(stop) + 1]
        assert steps[-1].finish_reason == "stop"


async def test_an_answer_ends_where_the_context_does(tiny_llama) -> None:
    async with started(tiny_llama, context_tokens=32) as engine:
        params = SamplingParams(temperature=0, ignore_eos=True)
        steps = await collect(engine, tuple(range(2, 22)), params)
        assert (len(steps), steps[-1].finish_reason) == (12, "length")


@pytest.mark.parametrize(
    ("free_bytes", "context", "slots", "expected"),
    [
        (64 << 30, 1024, 1, 1024),  # a context for every slot
        (64 << 30, 1024, 32, 2048),  # 2 GB
        (64 << 30, 4096, 32, 4096),  # one context, which takes 4 GB
        (6 << 30, 4096, 32, 3072),  # half of what is free
        (1 << 20, 4096, 32, CHUNK),
    ],
)
def test_the_default_kv_budget_holds_one_context_if_memory_does(
    monkeypatch, free_bytes, context, slots, expected
) -> None:
    memory = SimpleNamespace(available=free_bytes)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    vicuna_7b = Shape(
        num_layers=32, hidden_size=4096, num_heads=32, num_kv_heads=32, head_dim=128,
        vocab_size=32_000, norm_eps=1e-5, context_tokens=4096, is_tied=False, rope={},
    )  # fmt: skip
    assert default_kv_tokens(vicuna_7b, context, slots) == expected


async def test_a_prompt_that_cannot_fit_is_refused_with_both_numbers_and_harms_nobody(
    tiny_llama,
) -> None:
    async with started(tiny_llama, context_tokens=64) as engine:
        with pytest.raises(RequestError, match=r"70 tokens and the context is 64") as caught:
            await answer(engine, tuple(range(2, 72)))
        assert caught.value.code == "context_length_exceeded"
        assert len(await answer(engine, (5, 6, 7))) == 24


@pytest.mark.parametrize(
    ("prompt", "params"),
    [((), GREEDY), ((600,), GREEDY), ((5,), SamplingParams(logit_bias={512: 1.0}))],
)
async def test_requests_that_could_never_run_are_refused(tiny_llama, prompt, params) -> None:
    async with started(tiny_llama) as engine:
        with pytest.raises(RequestError):
            await answer(engine, prompt, params)


async def test_a_cancelled_request_frees_its_slot_and_the_others_are_undisturbed(
    tiny_llama,
) -> None:
    many = prompts(6, seed=3)
    long = SamplingParams(temperature=0, max_tokens=300, ignore_eos=True)
    async with started(tiny_llama, max_running=4) as engine:
        expected = [await answer(engine, prompt) for prompt in many]
        outbox = Outbox()
        for name in ("a", "b"):
            await engine.submit(Request(id=name, prompt_ids=(5, 6), params=long), outbox)
        others = asyncio.create_task(answers(engine, many))
        seen = {"a": 0, "b": 0}
        ended = {}
        async for steps in outbox:
            for step in steps:
                seen[step.request_id] += len(step.token_ids)
                if step.finish_reason:
                    ended[step.request_id] = step.finish_reason
            if seen["a"] > 3:
                engine.cancel("a")
                engine.cancel("b")
            if len(ended) == 2:
                break
        assert ended == {"a": "cancelled", "b": "cancelled"}
        assert await others == expected
        assert engine.capacity().running == 0
        assert engine.capacity().kv_used_tokens == 0


async def test_leaving_the_stream_frees_the_slot(tiny_llama) -> None:
    async with started(tiny_llama) as engine:
        long = SamplingParams(temperature=0, max_tokens=400, ignore_eos=True)
        stream = generate(engine, Request(id="x", prompt_ids=(5,), params=long))
        await anext(stream)
        assert engine.capacity().running == 1
        await stream.aclose()
        await answer(engine, (7, 8))
        assert engine.capacity().running == 0


async def test_a_full_queue_refuses_with_a_hint_when_to_come_back(tiny_llama) -> None:
    async with started(tiny_llama, max_running=1, max_waiting=1) as engine:
        outbox = Outbox()
        with pytest.raises(OverloadedError) as caught:
            for i in range(4):
                await engine.submit(Request(id=str(i), prompt_ids=(5,), params=GREEDY), outbox)
        assert caught.value.retry_after_s > 0


async def test_a_dead_engine_is_unhealthy_at_once_and_tells_every_reader(
    tiny_llama, monkeypatch
) -> None:
    async with started(tiny_llama) as engine:
        engine.check_health()

        def out_of_memory(*_: object) -> None:
            raise MemoryError("no memory left")

        monkeypatch.setattr(engine.model, "forward", out_of_memory)
        with pytest.raises(EngineDeadError, match="no memory left"):
            await answer(engine, (5, 6))
        with pytest.raises(EngineDeadError):
            engine.check_health()
        with pytest.raises(EngineDeadError):
            await answer(engine, (5, 6))


async def test_a_hanging_step_is_unhealthy(tiny_llama, monkeypatch) -> None:
    async with started(tiny_llama, hang_timeout_s=0.05) as engine:
        release = asyncio.Event()
        loop = asyncio.get_running_loop()
        forward = engine.model.forward

        def hang(*args: object):
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
            return forward(*args)

        monkeypatch.setattr(engine.model, "forward", hang)
        task = asyncio.create_task(answer(engine, (5, 6)))
        await asyncio.sleep(0.2)
        with pytest.raises(EngineDeadError, match="hangs"):
            engine.check_health()
        release.set()
        assert len(await task) == 24
        engine.check_health()


async def test_damaged_numbers_end_one_request_and_leave_the_next_intact(
    tiny_llama, monkeypatch
) -> None:
    async with started(tiny_llama) as engine:
        expected = await answer(engine, (5, 6, 7))
        forward = engine.model.forward
        monkeypatch.setattr(engine.model, "forward", lambda *a: forward(*a) * float("nan"))
        steps = await collect(engine, (9, 9))
        assert steps[-1].finish_reason == "error"
        monkeypatch.setattr(engine.model, "forward", forward)
        assert await answer(engine, (5, 6, 7)) == expected


class OneTokenThenTheEnd:
    """A grammar of one token, 7, over 512."""

    def __init__(self, grammar: Grammar) -> None:
        self.allowed = 7

    def bitmask(self) -> bytes:
        return (1 << self.allowed).to_bytes(64, "little")

    def accept(self, token_id: int) -> None:
        assert token_id == self.allowed == 7
        self.allowed = EOS


async def test_a_grammar_that_is_at_its_end_ends_the_answer_whatever_was_asked_for(
    tiny_llama,
) -> None:
    engine = TorchEngine(TorchConfig(path=tiny_llama), OneTokenThenTheEnd)
    await engine.start()
    for asked in ({"min_tokens": 9}, {"ignore_eos": True}, {"logit_bias": {EOS: -100.0}}):
        params = SamplingParams(grammar=Grammar(kind="json_object"), max_tokens=20, **asked)
        steps = await collect(engine, (5, 6), params)
        assert [t for step in steps for t in step.token_ids] == [7, EOS]
        assert steps[-1].finish_reason == "stop"
    await engine.close()


async def test_an_engine_that_dies_while_a_grammar_is_compiled_takes_no_request_in(
    tiny_llama,
) -> None:
    def factory(grammar: Grammar) -> OneTokenThenTheEnd:
        engine.model.forward = None
        asyncio.run_coroutine_threadsafe(collect(engine, (5, 6), id="other"), loop)
        engine._thread.join()
        return OneTokenThenTheEnd(grammar)

    loop = asyncio.get_running_loop()
    engine = TorchEngine(TorchConfig(path=tiny_llama), factory)
    await engine.start()
    with pytest.raises(EngineDeadError):
        async with asyncio.timeout(20):
            await collect(engine, (5, 6), SamplingParams(grammar=Grammar(kind="json_object")))
