"""The wiring's own decisions; what Ray does with them is in test_chaos.py."""

import pytest
from ray.train import UserCallback

from apps.common.errors import ConfigError, InputError
from apps.train import run
from apps.train.config import RunConfig


@pytest.mark.parametrize(
    ("gpus", "asked", "placed"),
    [
        (8, {}, (8, True)),
        (0, {}, (1, False)),
        (8, {"workers": 4}, (4, True)),
        (8, {"device": "cpu"}, (1, False)),
        (8, {"device": "cpu", "workers": 9}, (9, False)),
    ],
)
def test_a_run_takes_the_gpus_of_the_cluster(monkeypatch, gpus, asked, placed) -> None:
    monkeypatch.setattr(run.ray, "cluster_resources", lambda: {"GPU": gpus, "CPU": 96})
    config, *found = run._with_workers(RunConfig(base="", data="", out="", **asked))
    assert tuple(found) == placed
    assert (config.workers, config.device) == (placed[0], "cuda" if placed[1] else "cpu")


@pytest.mark.parametrize("use_gpu", [True, False])
@pytest.mark.parametrize("set_by_user", [True, False])
def test_workers_on_gpus_join_the_memory_they_free(
    monkeypatch, tmp_path, use_gpu, set_by_user
) -> None:
    """In the worker's environment from its start: torch reads it once, when CUDA is first used."""
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    if set_by_user:
        monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:512")
    config = RunConfig(base="", data="", out=str(tmp_path / "run"))
    environment = run._ray_run_config(config, UserCallback(), use_gpu=use_gpu).worker_runtime_env
    given = environment.get("env_vars") if environment else None
    wanted = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    assert (given or {}) == (wanted if use_gpu and not set_by_user else {})


@pytest.mark.parametrize(
    "changes",
    [{"strategy": "deepspeed"}, {"cpu_offload": True}],
    ids=["deepspeed", "cpu_offload"],
)
def test_reshard_step_is_refused_beside_what_contradicts_it(changes) -> None:
    with pytest.raises(ConfigError, match=r"reshard step.*; leave one of them out"):
        RunConfig(base="", data="", out="", reshard="step", **changes)


def test_too_few_gpus_are_told_and_no_cpu_stands_in_for_them(monkeypatch) -> None:
    monkeypatch.setattr(run.ray, "cluster_resources", lambda: {"GPU": 4, "CPU": 96})
    with pytest.raises(InputError, match=r"8 workers need a GPU each but the cluster has 4; use"):
        run._with_workers(RunConfig(base="", data="", out="", workers=8))
