"""A run whose storage is a bucket: a real S3 server, checkpoints straight to it."""

import os
from dataclasses import replace
from typing import Any

import pytest
import torch

from apps.common.command.cli import run
from apps.common.files import storage
from apps.train import preflight
from apps.train.__main__ import COMMANDS
from apps.train.checkpoint import checkpoint
from tests.train.chaos import curve, weights
from tests.train.ranks import on_ranks, train


@pytest.fixture(scope="module")
def bucket(s3: Any) -> str:
    s3.create_bucket(Bucket="runs")
    return "s3://runs"


def environment() -> dict[str, str]:
    """What a rank in another process must know to reach the bucket."""
    return {k: v for k, v in os.environ.items() if k.startswith("AWS_")}


def test_a_bucket_is_as_good_as_a_disk(bucket, small_run, tmp_path, capsys) -> None:
    local = replace(small_run, out=str(tmp_path / "local"))
    remote = preflight.prepare(replace(small_run, out=f"{bucket}/here/run")).config
    on_ranks(2, train, local)
    on_ranks(2, train, remote, 5, environment())
    killed = checkpoint.committed(remote.out)[0]
    assert killed.step in (2, 4)
    half = storage.join(checkpoint.folder(remote.out), "step-00000007", "__0_0.distcp")
    storage.write_atomic(half, b"half an upload")
    said: list[str] = []
    assert checkpoint.newest(remote.out, "digest", said.append) == killed
    assert said[0] == (
        "Skipped checkpoint step-00000007: it was never finished (no commit marker)."
    )  # the kill may have caught step 4 half-written too
    on_ranks(2, train, remote, None, environment())
    assert curve(remote) == curve(local)
    ours, theirs = weights(remote), weights(local)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert run("apps.train", COMMANDS, ["export", remote.out, "--out", f"{bucket}/model"]) == 0
    assert "export.done" in capsys.readouterr().out
    # An earlier export in several files, and its index: what is loaded is the new one.
    for left in ("model-00001.safetensors", "model.safetensors.index.json"):
        storage.write_json(f"{bucket}/model/{left}", {"weight_map": {}})
    assert run("apps.train", COMMANDS, ["export", remote.out, "--out", f"{bucket}/model"]) == 0
    assert not {n for n in storage.list_dir(f"{bucket}/model") if "00001" in n or "index" in n}
    assert {"config.json", "model.safetensors", "chat_template.jinja", "lineage.json"} <= set(
        storage.list_dir(f"{bucket}/model")
    )
