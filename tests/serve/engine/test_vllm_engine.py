import asyncio
import dataclasses
import json
import os
import shutil
import signal
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from transformers import LlamaForCausalLM

from apps.common.errors import CriaError
from apps.serve.engine.config import TorchConfig, VllmConfig
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
from apps.serve.engine.torch.engine import TorchEngine
from apps.serve.engine.vllm.engine import VllmEngine
from apps.serve.engine.vllm.messages import completion_body, last_words, server_command
from tests.serve.engine.llamas import save_llama

STAND_IN = Path(__file__).with_name("scripted_vllm.py")
GREEDY = SamplingParams(temperature=0, max_tokens=8)


@pytest.fixture
def stand_in(tmp_path, monkeypatch) -> VllmConfig:
    """A package named vllm whose API server is the scripted one, and a model folder."""
    package = tmp_path / "packages" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    shutil.copy(STAND_IN, package / "api_server.py")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"vocab_size": 512, "eos_token_id": 1}))
    return VllmConfig(path=str(folder), start_timeout_s=60)


@asynccontextmanager
async def started(config: VllmConfig):
    engine = VllmEngine(config)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


async def collect(engine, prompt, params=GREEDY, **kwargs) -> list:
    request = Request(id="r", prompt_ids=prompt, params=params, **kwargs)
    return [step async for step in generate(engine, request)]


def expected(token: int, count: int) -> list[int]:
    out = []
    for _ in range(count):
        token = (token * 7 + 3) % 512
        out.append(token)
    return out


async def test_tokens_go_in_and_come_out_through_its_own_server_process(stand_in) -> None:
    async with started(stand_in) as engine:
        assert (engine.info.context_tokens, engine.info.vocab_size) == (256, 512)
        steps = await collect(engine, (5, 6))
        assert [t for s in steps for t in s.token_ids] == expected(6, 8)
        assert [s.finish_reason for s in steps] == [None] * 7 + ["length"]
        pid = engine._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_frozen_server_is_silent_until_it_goes_on(stand_in, monkeypatch) -> None:
    monkeypatch.setattr("apps.serve.engine.vllm.engine._HEALTH_PERIOD_S", 0.1)
    monkeypatch.setattr("apps.serve.engine.vllm.engine._LOOK_S", 0.05)
    async with started(stand_in) as engine:
        await asyncio.sleep(1)
        assert not engine.is_silent()
        os.kill(engine._process.pid, signal.SIGSTOP)
        async with asyncio.timeout(5):
            while not engine.is_silent():
                await asyncio.sleep(0.01)
        os.kill(engine._process.pid, signal.SIGCONT)
        async with asyncio.timeout(5):
            while engine.is_silent():
                await asyncio.sleep(0.01)
        engine.check_health()


async def test_a_moved_request_continues_after_its_tokens(stand_in) -> None:
    async with started(stand_in) as engine:
        whole = expected(6, 8)
        steps = await collect(engine, (5, 6), generated_ids=tuple(whole[:3]))
        assert [t for s in steps for t in s.token_ids] == whole[3:]


@pytest.mark.parametrize("leave_out", ["", "1"])
async def test_the_stop_token_ends_the_answer_and_is_part_of_it(
    stand_in, monkeypatch, leave_out
) -> None:
    monkeypatch.setenv("LEAVE_OUT_END", leave_out)
    tokens = expected(6, 8)
    params = SamplingParams(temperature=0, max_tokens=8, stop_token_ids=(tokens[4],))
    async with started(stand_in) as engine:
        steps = await collect(engine, (5, 6), params)
        assert [t for s in steps for t in s.token_ids] == tokens[:5]
        assert steps[-1].finish_reason == "stop"


async def test_log_probabilities_come_with_token_ids(stand_in) -> None:
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=1)
    async with started(stand_in) as engine:
        (step,) = await collect(engine, (5, 6), params)
        assert step.logprobs == ((-0.5, ((step.token_ids[0], -0.5),)),)


async def test_log_probabilities_of_the_prompt_come_before_the_first_token(stand_in) -> None:
    params = SamplingParams(temperature=0, max_tokens=2, logprobs=1, prompt_logprobs=True)
    async with started(stand_in) as engine:
        first, last = await collect(engine, (5, 6, 8), params)
        assert first.prompt_logprobs == ((-0.75, ((6, -0.75),)), (-1.0, ((8, -1.0),)))
        assert len(first.logprobs) == len(first.token_ids) == 1
        assert not last.prompt_logprobs and len(last.logprobs) == 1
        while engine._tasks:
            await asyncio.sleep(0.01)
        (moved,) = await collect(engine, (5, 6, 8), params, generated_ids=first.token_ids)
        assert not moved.prompt_logprobs and moved.token_ids == last.token_ids


async def test_refusals_of_the_server_name_its_reason(stand_in) -> None:
    async with started(stand_in) as engine:
        with pytest.raises(RequestError, match=r"cannot do \.123"):
            await collect(engine, (5,), SamplingParams(temperature=0.123))
        with pytest.raises(RequestError, match="context is 256"):
            await collect(engine, tuple(range(2, 300)))


async def test_no_more_than_the_limits_are_in_work_however_fast_they_come(stand_in) -> None:
    async with started(dataclasses.replace(stand_in, max_running=1, max_waiting=2)) as engine:
        params = SamplingParams(temperature=0, ignore_eos=True, max_tokens=40)
        requests = [Request(id=f"r{i}", prompt_ids=(5,), params=params) for i in range(7)]
        outbox = Outbox()
        submitted = await asyncio.gather(
            *(engine.submit(request, outbox) for request in requests), return_exceptions=True
        )
        refused = [error for error in submitted if isinstance(error, OverloadedError)]
        assert len(refused) == 4 and len(engine._tasks) == 3


async def test_leaving_the_stream_closes_the_connection(stand_in) -> None:
    async with started(stand_in) as engine:
        params = SamplingParams(temperature=0, ignore_eos=True)
        stream = generate(engine, Request(id="r", prompt_ids=(5,), params=params))
        await anext(stream)
        await stream.aclose()
        await asyncio.sleep(0.05)
        assert not engine._tasks


async def test_a_request_that_is_cancelled_at_once_ends_and_leaves_nothing(stand_in) -> None:
    async with started(stand_in) as engine:
        outbox = Outbox()
        request = Request(id="r", prompt_ids=(5,), params=SamplingParams(ignore_eos=True))
        await engine.submit(request, outbox)
        engine.cancel("r")
        async with asyncio.timeout(5):
            (step,) = await anext(aiter(outbox))
        assert step.finish_reason == "cancelled"
        assert engine.capacity().waiting == 0
        assert not engine._http.connector._acquired, "the connection is held"


async def test_a_killed_server_is_unhealthy_at_once_and_ends_every_stream(stand_in) -> None:
    async with started(stand_in) as engine:
        engine.check_health()
        params = SamplingParams(temperature=0, ignore_eos=True)
        stream = generate(engine, Request(id="r", prompt_ids=(5,), params=params))
        await anext(stream)
        os.kill(engine._process.pid, signal.SIGKILL)
        with pytest.raises(EngineDeadError):
            while (await anext(stream)).finish_reason is None:
                pass
        with pytest.raises(EngineDeadError, match="last words"):
            engine.check_health()


async def test_an_answer_that_fails_alone_ends_alone_and_one_that_ends_the_engine_moves_all(
    stand_in,
) -> None:
    async with started(stand_in) as engine:
        long = SamplingParams(temperature=0, ignore_eos=True)
        other = generate(engine, Request(id="other", prompt_ids=(5,), params=long))
        await anext(other)
        steps = await collect(engine, (5, 6), SamplingParams(temperature=0.124))
        assert steps[-1].finish_reason == "error" and "out of order" in steps[-1].error
        steps = await collect(engine, (5, 6), SamplingParams(temperature=0.126))
        assert steps[-1].finish_reason == "error", "an event of another form"
        assert (await anext(other)).finish_reason is None
        with pytest.raises(EngineDeadError):
            await collect(engine, (5, 6), SamplingParams(temperature=0.125))
        with pytest.raises(EngineDeadError):
            [step async for step in other]
        with pytest.raises(EngineDeadError):
            engine.check_health()


async def test_a_server_that_cannot_start_says_why(stand_in, tmp_path) -> None:
    with pytest.raises(CriaError, match="cannot load this model"):
        await VllmEngine(VllmConfig(path=str(tmp_path / "broken"), start_timeout_s=60)).start()


def test_the_first_exception_of_a_log_is_the_one_to_tell() -> None:
    log = "WARNING no OSError: yet\n(Worker) ERROR ValueError: no memory left\nRuntimeError: that\n"
    assert last_words(log) == "ValueError: no memory left"
    assert (last_words("killed\n"), last_words("")) == ("killed", "none")


async def test_metrics_are_added_up_over_its_engines(stand_in) -> None:
    async with started(stand_in) as engine:
        await engine._read_metrics()
        sums = {"running_requests": 2.0, "generated_tokens_total": 42.0}
        assert engine.metrics() == {**sums, "kv_used_ratio": 0.5}, "the mean of a share"


def test_every_setting_reaches_the_server_s_command_line() -> None:
    config = VllmConfig(
        path="/m", python="/env/python", tensor_parallel_size=4, quantization="fp8", lora="/a",
        context_tokens=999, max_running=7, server_args=("--enforce-eager",),
    )  # fmt: skip
    assert server_command(config, 80) == [
        "/env/python", "-m", "vllm.entrypoints.openai.api_server", "--model", "/m",
        "--host", "127.0.0.1", "--port", "80", "--max-num-seqs", "7",
        "--tensor-parallel-size", "4", "--quantization", "fp8", "--max-model-len", "999",
        "--enable-lora", "--lora-modules", "adapter=/a", "--enforce-eager",
    ]  # fmt: skip


async def test_an_adapter_answers_in_the_place_of_its_base(stand_in) -> None:
    async with started(stand_in) as base:
        assert base.info.model == "scripted"
    async with started(dataclasses.replace(stand_in, lora="/an/adapter")) as engine:
        assert engine.info.model == "adapter"
        assert len(await collect(engine, (5, 6))) == 8


def test_every_sampling_value_reaches_the_server() -> None:
    info = VllmEngineInfo()
    params = SamplingParams(
        max_tokens=9, temperature=0.5, top_p=0.4, top_k=3, min_p=0.1, presence_penalty=0.2,
        frequency_penalty=0.3, repetition_penalty=1.1, logit_bias={4: 2.0}, seed=8,
        stop_token_ids=(7,), grammar=Grammar(kind="json_schema", text='{"type":"array"}'),
    )  # fmt: skip
    body = completion_body(Request(id="r", prompt_ids=(1, 2), params=params), info)
    wanted = {
        "max_tokens": 9, "temperature": 0.5, "top_p": 0.4, "top_k": 3, "min_p": 0.1,
        "presence_penalty": 0.2, "frequency_penalty": 0.3, "repetition_penalty": 1.1,
        "logit_bias": {"4": 2.0}, "seed": 8, "stop_token_ids": [7],
        "structured_outputs": {"json": '{"type":"array"}'},
    }  # fmt: skip
    assert body.items() >= wanted.items()


class VllmEngineInfo:
    model, context_tokens, eos_token_ids = "m", 100, (1,)


@pytest.fixture
def real_server(tmp_path_factory) -> VllmConfig:
    python = os.environ.get("CRIA_VLLM_PYTHON")
    if not python:
        pytest.skip("CRIA_VLLM_PYTHON does not name an interpreter that has vLLM")
    # Its attention on a CPU knows heads of 32 numbers and more.
    folder = save_llama(tmp_path_factory, num_heads=4, num_key_heads=2, head_dim=64)
    return VllmConfig(
        path=folder, python=python, context_tokens=256,
        server_args=(
            "--skip-tokenizer-init", "--dtype", "float32", "--enforce-eager",
            "--kv-cache-memory-bytes", str(64 << 20),
        ),
    )  # fmt: skip


async def torch_answer(folder: str, prompt: tuple, params: SamplingParams) -> list:
    engine = TorchEngine(TorchConfig(path=folder))
    await engine.start()
    steps = await collect(engine, prompt, params)
    await engine.close()
    return steps


def tokens_of(steps: list) -> list[int]:
    return [token for step in steps for token in step.token_ids]


@pytest.mark.slow
@pytest.mark.timeout(900)  # a minute to start, where nothing else runs
async def test_the_real_server_gives_the_torch_engine_s_greedy_tokens(real_server) -> None:
    params = SamplingParams(
        temperature=0, max_tokens=24, ignore_eos=True, logprobs=2, prompt_logprobs=True
    )
    async with started(real_server) as engine:
        for prompt in ((5, 6, 7), tuple(range(20, 90))):
            theirs = await collect(engine, prompt, params)
            ours = await torch_answer(real_server.path, prompt, params)
            assert len(tokens_of(theirs)) == 24 and tokens_of(theirs) == tokens_of(ours)
            for field in ("logprobs", "prompt_logprobs"):
                of_theirs, of_ours = (
                    [x.logprob for s in steps for x in getattr(s, field)]
                    for steps in (theirs, ours)
                )
                assert of_theirs == pytest.approx(of_ours, abs=1e-3)
            assert len(of_theirs) == len(prompt) - 1


@pytest.mark.slow
@pytest.mark.timeout(900)  # a minute to start, where nothing else runs
async def test_the_real_server_answers_with_its_adapter_and_its_death_is_seen_at_once(
    real_server, tmp_path
) -> None:
    from peft import LoraConfig, get_peft_model

    targets = ["q_proj", "v_proj"]
    base = LlamaForCausalLM.from_pretrained(real_server.path)
    tuned = get_peft_model(base, LoraConfig(target_modules=targets, init_lora_weights=False))
    tuned.save_pretrained(str(tmp_path / "adapter"))
    tuned.merge_and_unload().save_pretrained(str(tmp_path / "merged"))
    params = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True)
    config = dataclasses.replace(real_server, lora=str(tmp_path / "adapter"))
    async with started(config) as engine:
        answer = tokens_of(await collect(engine, (5, 6, 7), params))
        assert answer == tokens_of(await torch_answer(str(tmp_path / "merged"), (5, 6, 7), params))
        assert answer != tokens_of(await torch_answer(config.path, (5, 6, 7), params))
        long = SamplingParams(temperature=0, max_tokens=200, ignore_eos=True)
        stream = generate(engine, Request(id="r", prompt_ids=(5,), params=long))
        await anext(stream)
        server = psutil.Process(engine._process.pid)
        (core,) = [p for p in server.children(recursive=True) if "EngineCore" in p.name()]
        core.kill()
        with pytest.raises(EngineDeadError):
            [step async for step in stream]
        with pytest.raises(EngineDeadError):
            engine.check_health()


async def test_a_server_that_moved_gets_no_text_at_its_new_address(tmp_path) -> None:
    taken: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/elsewhere":
            taken.append(await request.text())
        if request.path == "/v1/completions":
            return web.Response(status=307, headers={"Location": "/elsewhere"})
        return web.json_response({"data": [{"id": "m", "max_model_len": 256}]})

    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 512, "eos_token_id": 1}))
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    async with TestServer(app) as server:
        config = VllmConfig(path=str(tmp_path), base_url=str(server.make_url("/v1")))
        async with started(config) as engine:
            with pytest.raises(CriaError, match="moved to /elsewhere; give that as its base_url"):
                await collect(engine, (5, 6))
    assert taken == []
