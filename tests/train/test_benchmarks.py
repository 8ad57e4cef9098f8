"""The training benchmarks run; their numbers are logged in benchmarks/LOG.md, never asserted."""

import numpy as np

from benchmarks import chat_lengths, gpu_train


def test_gpu_benchmark_runs_dry_on_the_cpu(tmp_path, capsys):
    found = gpu_train.main(["--dry-run", "--out", str(tmp_path / "found.json")])
    assert found["debug"]["ours"]["tokens_per_s"] > 0
    assert found["debug"]["padded"]["tokens_per_s"] > 0
    assert "ours / padded Trainer" in capsys.readouterr().out


def test_settings_are_the_largest_micro_batches_that_fit_one_card():
    h200, h100 = map(gpu_train.hardware.by_name, ("H200", "H100"))
    seven, thirteen = gpu_train.KNOWN["llama-7b"], gpu_train.KNOWN["llama-13b"]
    best = gpu_train.fitting(seven, h200)[:2]
    assert [(s.micro_rows, s.checkpointing, s.state) for s in best] == [
        (4, "none", "bf16"),
        (2, "none", "fp32"),
    ]
    assert {s.state for s in gpu_train.fitting(thirteen, h200) if not s.cpu_offload} == {"int8"}
    assert all(s.checkpointing != "none" for s in gpu_train.fitting(seven, h100))


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
