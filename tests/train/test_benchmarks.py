"""The training benchmarks run; their numbers are logged in benchmarks/LOG.md, never asserted."""

import json

import numpy as np
import pytest
import torch

from benchmarks import chat_lengths, gpu_train
from benchmarks.contenders import train_ours, train_padded


def test_gpu_benchmark_runs_dry_in_processes_of_its_own(tmp_path):
    out = tmp_path / "found.json"
    argv = ["--dry-run", "--no-compile", "--tries", "1", "--no-padded", "--out", str(out)]
    found = gpu_train.main(argv)
    assert found["tiny"]["ours"]["tokens_per_s"] > 0
    assert json.loads(out.read_text()) == found


@pytest.fixture
def in_this_process(monkeypatch):
    """Runs without a process each; what one sets for the numerics is set back."""
    scripts = {"train_ours": train_ours, "train_padded": train_padded}
    monkeypatch.setattr(gpu_train, "run", lambda script, argv: scripts[script].main(argv))
    yield
    torch.set_float32_matmul_precision("highest")


def test_gpu_benchmark_s_dry_run_takes_every_switch(in_this_process, capsys):
    found = gpu_train.main(["--dry-run", "--no-compile"])["tiny"]
    assert len(found["tried"]) == 4
    assert len(found["padded_tried"]) == 2
    assert all(run["tokens_per_s"] > 0 for run in found["tried"] + found["padded_tried"])
    assert "ours / padded Trainer" in capsys.readouterr().out


def test_a_dry_run_in_which_a_run_fails_has_failed(monkeypatch):
    def fail(script: str, argv: list[str]) -> dict:
        raise gpu_train.subprocess.CalledProcessError(1, script)

    monkeypatch.setattr(gpu_train, "run", fail)
    with pytest.raises(SystemExit, match="the dry run failed"):
        gpu_train.main(["--dry-run"])


@pytest.fixture
def on_a_card(monkeypatch):
    monkeypatch.setattr(gpu_train.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_train, "this_gpu", lambda: gpu_train.hardware.by_name("H200"))


def measured_or_not(monkeypatch, *failing: str) -> None:
    """Runs in no time; those with the given flags fail."""

    def measured(script: str, argv: list[str]) -> dict:
        if any(flag in " ".join(argv) for flag in failing):
            raise gpu_train.subprocess.CalledProcessError(1, script)
        return {"step_s": [1.0] * 9, "step_tokens": [2048] * 9, "memory_bytes": 1e9}

    monkeypatch.setattr(gpu_train, "run", measured)


def test_the_rate_is_of_the_steps_after_the_warm_up_all_of_them():
    found = {"step_s": [9.0, 9.0, 2.0, 4.0], "step_tokens": [1, 1, 500, 700], "memory_bytes": 1e9}
    card = gpu_train.hardware.by_name("H200")
    result = gpu_train.measured(found, gpu_train.KNOWN["llama-7b"], card, "")
    assert result["tokens_per_s"] == 1200 / 6


def test_too_few_steps_are_refused(capsys):
    with pytest.raises(SystemExit):
        gpu_train.main(["--dry-run", "--steps", "3"])
    assert "--steps is 3; expected more than 3, the warm-up" in capsys.readouterr().err


def test_a_benchmark_in_which_every_try_of_ours_fails_has_failed(on_a_card, tmp_path, monkeypatch):
    """What the other shape reached is written all the same."""
    measured_or_not(monkeypatch, "/llama-7b ")
    out = tmp_path / "found.json"
    with pytest.raises(SystemExit, match="every try of ours failed for llama-7b; the reasons"):
        gpu_train.main(["--out", str(out)])
    found = json.loads(out.read_text())
    assert found["llama-7b"]["ours"] is None
    assert found["llama-13b"]["ours"]["tokens_per_s"] == 2048


def test_a_benchmark_with_a_failing_try_among_others_says_so(on_a_card, monkeypatch, capsys):
    measured_or_not(monkeypatch, "--optimizer-state fp32")
    found = gpu_train.main(["--shapes", "llama-7b"])["llama-7b"]
    assert found["ours"] is not None
    assert "fp32, reshard step: failed, exit status 1" in capsys.readouterr().out


def test_a_run_that_fails_leaves_the_others_and_their_file(in_this_process, tmp_path, monkeypatch):
    out, runs = tmp_path / "found.json", []

    def fail_after_the_first(script: str, argv: list[str]) -> dict:
        runs.append(script)
        if len(runs) == 2:
            raise gpu_train.subprocess.CalledProcessError(1, script)
        if len(runs) == 3:
            raise KeyboardInterrupt
        return train_ours.main(argv)

    monkeypatch.setattr(gpu_train, "run", fail_after_the_first)
    with pytest.raises(KeyboardInterrupt):
        gpu_train.main(["--dry-run", "--no-compile", "--out", str(out)])
    first, second = json.loads(out.read_text())["tiny"]["tried"]
    assert first["tokens_per_s"] > 0
    assert "exit status 1" in second["error"]


def test_settings_are_the_largest_micro_batches_that_fit_one_card():
    h200, h100 = map(gpu_train.hardware.by_name, ("H200", "H100"))
    seven, thirteen = gpu_train.KNOWN["llama-7b"], gpu_train.KNOWN["llama-13b"]
    best = gpu_train.likely_best(gpu_train.fitting(seven, h200, ["fp32", "bf16"]), 1)
    assert [(s.micro_rows, s.checkpointing, s.state, s.reshard) for s in best] == [
        (3, "elementwise", "fp32", "step"),
        (6, "elementwise", "bf16", "step"),
    ]
    assert {s.state for s in gpu_train.fitting(thirteen, h200) if not s.cpu_offload} == {"int8"}
    smaller = gpu_train.fitting(seven, h100)
    assert {s.state for s in smaller if not s.cpu_offload} == {"int8"}
    assert max(s.micro_rows for s in smaller if s.checkpointing == "none") == 1
    assert gpu_train.fitting(gpu_train.KNOWN["debug"], h200, ["int8"])[0].state == "int8"


def test_a_host_too_small_for_the_state_is_not_offered_offload(monkeypatch):
    card, shape = gpu_train.hardware.by_name("H100"), gpu_train.KNOWN["llama-13b"]
    host = gpu_train.psutil.virtual_memory()
    for size, num_settings in ((128e9, 0), (256e9, 1)):
        memory = host._replace(available=size)
        monkeypatch.setattr(gpu_train.psutil, "virtual_memory", lambda memory=memory: memory)
        assert len(gpu_train.fitting(shape, card)) == num_settings


def test_lengths_have_the_published_mean_with_and_without_the_real_sample(monkeypatch):
    monkeypatch.delenv("CRIA_TEST_DATA", raising=False)
    made, source = chat_lengths.lengths()
    assert "log-normal" in source
    assert 1500 < made.mean() < 1600
    assert made.max() == chat_lengths.CUT_TOKENS


def test_conversations_are_the_same_in_every_process():
    first, again = (chat_lengths.conversations(5, 100, scale=0.1) for _ in range(2))
    assert first == again
    assert all(len(c.ids) == len(c.labels) for c in first)
    assert 0.5 < np.mean([label != -100 for c in first for label in c.labels]) < 0.7
