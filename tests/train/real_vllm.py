"""The real vLLM, in an interpreter of its own that the environment names."""

import json
import os
import subprocess
from pathlib import Path

import pytest

PYTHON = "CRIA_VLLM_PYTHON"
needed = pytest.mark.skipif(PYTHON not in os.environ, reason=f"{PYTHON} names no vLLM")

_SCRIPT = """
import json, sys
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

if __name__ == "__main__":
    model, prompt, adapter = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
    llm = LLM(
        model, dtype="float32", enforce_eager=True, max_model_len=256,
        kv_cache_memory_bytes=64 << 20, enable_lora=bool(adapter),
    )
    answers = llm.generate(
        {"prompt_token_ids": prompt},
        SamplingParams(temperature=0, max_tokens=24, ignore_eos=True),
        lora_request=LoRARequest("tuned", 1, adapter) if adapter else None,
    )
    print(json.dumps(list(answers[0].outputs[0].token_ids)))
"""


def answer(folder: Path | str, prompt: list[int], adapter: str = "") -> list[int]:
    """24 greedy tokens of the real vLLM, in its own interpreter."""
    python = os.environ[PYTHON]
    command = [python, "-c", _SCRIPT, str(folder), json.dumps(prompt), adapter]
    environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])
