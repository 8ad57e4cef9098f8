"""The training benchmarks run; their numbers are logged in benchmarks/LOG.md, never asserted."""

import numpy as np

from benchmarks import chat_lengths, gpu_train


def test_gpu_benchmark_runs_dry_on_the_cpu(tmp_path, capsys):
    found = gpu_train.main(["--dry-run", "--out", str(tmp_path / "found.json")])
    assert found["debug"]["ours"]["tokens_per_s"] > 0
    assert found["debug"]["padded"]["tokens_per_s"] > 0
    assert "ours / padded Trainer" in capsys.readouterr().out


def test_settings_for_an_h200_fit_and_train_the_whole_model():
    card = gpu_train.hardware.by_name("H200")
    for name in ("llama-7b", "llama-13b"):
        assert gpu_train.fitting(gpu_train.KNOWN[name], card), name


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
