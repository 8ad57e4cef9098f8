"""One engine, one workload, in the interpreter it is started with: `serve.py` runs it per peer.

    python benchmarks/contenders/serve_engines.py ours MODEL WORKLOAD.json --threads 2
    python benchmarks/contenders/serve_engines.py ours MODEL WORKLOAD.json --bf16

Prints one JSON line. A workload is [[prompt ids, answer tokens], ...], all submitted at once;
answers are greedy and never end early. Tokens/s count asked-for tokens only. All is float32, or
with --bf16 weights and products are bfloat16 wherever the engine has such products.
"""

import argparse
import asyncio
import concurrent.futures
import json
import os
import time
from collections.abc import Callable

Work = list[tuple[list[int], int]]


def static(model: str, work: Work, threads: int, *, is_half: bool) -> Callable[[], None]:
    """transformers.generate on one padded batch, until its longest answer is done."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    network = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.bfloat16 if is_half else torch.float32
    )
    width = max(len(prompt) for prompt, _ in work)
    ids = torch.tensor([[0] * (width - len(p)) + p for p, _ in work])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p, _ in work])
    longest = max(tokens for _, tokens in work)

    def run() -> None:
        network.generate(
            ids, attention_mask=mask, do_sample=False, max_new_tokens=longest,
            eos_token_id=None, pad_token_id=0,
        )  # fmt: skip

    return run


def continuous(model: str, work: Work, threads: int, *, is_half: bool) -> Callable[[], None]:
    """transformers' continuous batching, fed through its manager."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    torch.set_num_threads(threads)
    network = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.bfloat16 if is_half else torch.float32, attn_implementation="sdpa"
    )
    settings = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
    batching = ContinuousBatchingConfig(num_blocks=512, block_size=32, max_batch_tokens=512)

    def run() -> None:
        manager = network.init_continuous_batching(
            generation_config=settings, continuous_batching_config=batching
        )
        manager.start()
        try:
            for prompt, tokens in work:
                manager.add_request(prompt, max_new_tokens=tokens)
            done = 0
            while done < len(work):
                result = manager.get_result(timeout=60)
                assert result is not None, "continuous batching stopped answering"
                done += result.is_finished()
        finally:
            manager.stop(block=True)

    return run


def openvino(model: str, work: Work, threads: int, *, is_half: bool) -> Callable[[], None]:
    """openvino-genai's continuous batching, float32 cache included; `model` is its export."""
    import numpy as np
    import openvino as ov
    import openvino_genai as genai

    scheduler = genai.SchedulerConfig()
    scheduler.cache_size, scheduler.max_num_seqs = 1, 32
    scheduler.enable_prefix_caching = False
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if is_half else "f32",
        "KV_CACHE_PRECISION": "bf16" if is_half else "f32",
    }
    pipeline = genai.ContinuousBatchingPipeline(model, scheduler, "CPU", settings)
    prompts = [ov.Tensor(np.array([prompt], dtype=np.int64)) for prompt, _ in work]
    configs = []
    for _, tokens in work:
        config = genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = tokens, True, False
        configs.append(config)
    return lambda: pipeline.generate(prompts, configs)


def vllm(model: str, work: Work, threads: int, *, is_half: bool) -> Callable[[], None]:
    """vLLM on the CPU, eager; by default it would reserve 92 % of a node's memory."""
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{threads - 1}"
    from vllm import LLM, SamplingParams

    engine = LLM(
        model, dtype="bfloat16" if is_half else "float32", enforce_eager=True, max_num_seqs=32,
        max_model_len=1024,
        enable_prefix_caching=False, disable_log_stats=True,
        kv_cache_memory_bytes=1 << 30,
    )  # fmt: skip
    prompts = [{"prompt_token_ids": prompt} for prompt, _ in work]
    params = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for _, n in work]
    return lambda: engine.generate(prompts, params, use_tqdm=False)


def llama_cpp(model: str, work: Work, threads: int, *, is_half: bool) -> Callable[[], None]:
    """llama.cpp's server by its binding, a slot for each request; `model` is a GGUF file."""
    import httpx
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.verbosity = model, 0
    params.n_parallel = len(work)
    params.n_ctx = 512 * len(work)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    kind = xllamacpp.ggml_type.GGML_TYPE_F16 if is_half else xllamacpp.ggml_type.GGML_TYPE_F32
    params.cache_type_k = params.cache_type_v = kind
    server = xllamacpp.Server(params)  # it ends with its last reference
    client = httpx.Client(timeout=600)

    def one(request: tuple[list[int], int]) -> None:
        prompt, tokens = request
        body = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "ignore_eos": True,
                "cache_prompt": False}  # fmt: skip
        reply = client.post(f"{server.listening_address}/completion", json=body)
        answer = reply.raise_for_status().json()
        assert answer["tokens_predicted"] == tokens, answer

    def run() -> None:
        with concurrent.futures.ThreadPoolExecutor(len(work)) as pool:
            list(pool.map(one, work))

    return run


def ours(model: str, work: Work, threads: int, *, is_half: bool) -> Callable[[], None]:
    """All requests through one outbox, as a replica submits them."""
    from apps.serve.engine.config import TorchConfig
    from apps.serve.engine.create import create_engine
    from apps.serve.engine.protocol import Outbox, Request, SamplingParams

    loop = asyncio.new_event_loop()
    dtype = "bfloat16" if is_half else "float32"
    config = TorchConfig(path=model, dtype=dtype, num_threads=threads, prefix_cache=False)
    engine = create_engine(config, mask_factory=None)
    loop.run_until_complete(engine.start())

    async def everything() -> None:
        outbox, running = Outbox(), len(work)
        for i, (prompt, tokens) in enumerate(work):
            params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
            request = Request(id=str(i), prompt_ids=tuple(prompt), params=params)
            await engine.submit(request, outbox)
        async for steps in outbox:
            running -= sum(step.finish_reason is not None for step in steps)
            if not running:
                return

    return lambda: loop.run_until_complete(everything())


ENGINES = {f.__name__: f for f in (static, continuous, openvino, vllm, llama_cpp, ours)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("model")
    parser.add_argument("workload")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="instead of float32")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts")
    args = parser.parse_args()
    with open(args.workload) as file:
        work = [(prompt, tokens) for prompt, tokens in json.load(file)]
    run = ENGINES[args.engine](args.model, work, args.threads, is_half=args.bf16)
    seconds = []
    for _ in range(args.repeats):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    tokens = sum(tokens for _, tokens in work)
    print(json.dumps({"tokens_per_s": tokens / min(seconds), "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
