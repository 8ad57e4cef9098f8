"""Traffic as a gateway counts it, and the placement that a YAML says."""

from dataclasses import replace

import httpx
import numpy as np
import pytest

from apps.common.errors import ConfigError, CriaError
from apps.common.files import config as configs
from apps.serve.answer.choices import Usage
from apps.serve.applications import serve_config
from apps.serve.config import ServeConfig
from apps.serve.gateway.metrics import GatewayMetrics, render
from apps.serve.place import live
from apps.serve.place.in_use import check, in_use, replaced
from apps.serve.place.live import Asked
from apps.serve.place.output import service
from apps.serve.place.placement import Group, Model, Placement, placement
from apps.serve.place.speed import shape


def count(metrics: GatewayMetrics, model: str, requests: int, status: str = "200") -> None:
    """Each of 100 tokens, answered with 50."""
    for number in range(requests):
        key = "ali" if number % 2 else "ben"
        metrics.requests.labels(model, "chat", status, key).inc()
        if status == "200":
            usage = Usage(prompt_tokens=100, completion_tokens=50)
            metrics.count_usage(model, key, usage, 0.0)


def test_what_is_asked_is_read_as_the_gateway_writes_it() -> None:
    metrics = GatewayMetrics()
    count(metrics, "small", 6)
    count(metrics, "big", 2)
    count(metrics, "big", 5, status="429")
    before = live.counted(render([metrics.samples()], {}, {}))
    assert before["small"] == Asked(requests=6, prompt_tokens=600, output_tokens=300)
    assert before["big"] == Asked(requests=2, prompt_tokens=200, output_tokens=100)
    count(metrics, "small", 1)
    after = live.counted(render([metrics.samples()], {}, {}))
    grown = live.between(before, after)
    assert grown["small"] == Asked(requests=1, prompt_tokens=100, output_tokens=50)
    assert grown["big"] == Asked()


def test_what_clients_gave_up_was_asked_for() -> None:
    metrics = GatewayMetrics()
    count(metrics, "small", 3, status="499")
    count(metrics, "small", 2, status="404")
    assert live.counted(render([metrics.samples()], {}, {}))["small"].requests == 3


def test_gateways_that_began_again_have_counted_what_they_say() -> None:
    grown = live.between({"m": Asked(requests=900)}, {"m": Asked(requests=7)})
    assert grown == {"m": Asked(requests=7)}


def test_made_requests_are_like_those_that_came() -> None:
    asked = [
        Asked(requests=1200, prompt_tokens=1200 * 300, output_tokens=1200 * 40),
        Asked(),
        Asked(requests=300, prompt_tokens=300 * 50, output_tokens=300 * 200),
    ]
    made = live.like(asked, 600, seconds=1200, cv=1.0, seed=1)
    counts = np.bincount(made.model, minlength=3)
    assert counts.tolist() == pytest.approx([2400, 0, 600], rel=0.15)
    assert made.prompt_tokens[made.model == 0].mean() == pytest.approx(300, rel=0.1)
    assert made.output_tokens[made.model == 2].mean() == pytest.approx(200, rel=0.15)
    assert (np.diff(made.at_s) >= 0).all()


def test_a_few_requests_of_a_day_are_not_none_of_a_minute() -> None:
    made = live.like([Asked(requests=20)], 86400, seconds=60, cv=2.0, seed=0)
    assert made.num_requests >= 10 and made.prompt_tokens.min() >= 1


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "no address"])
def test_a_gateway_that_is_not_there_is_a_sentence(address: str) -> None:
    with pytest.raises(CriaError, match="cannot be read"):
        live.read(address, "")


@pytest.mark.parametrize(("status", "hint"), [(401, "admin's key"), (503, "answers 503")])
def test_a_gateway_that_refuses_is_a_sentence(status: int, hint: str, monkeypatch) -> None:
    monkeypatch.setattr(
        httpx, "get", lambda url, **_: httpx.Response(status, request=httpx.Request("GET", url))
    )
    with pytest.raises(CriaError, match=hint):
        live.read("http://127.0.0.1:9", "")


def models(count: int) -> list[Model]:
    speeds = shape("llama-7b", "A100-80GB")
    return [Model(name=f"m{number}", path="p", shape=speeds) for number in range(count)]


def names(count: int) -> list[str]:
    return [model.name for model in models(count)]


def group(*held: int, tensor: int = 1, pipeline: int = 1) -> Group:
    return Group(tensor=tensor, pipeline=pipeline, models=held)


@pytest.mark.parametrize("is_cpus", [False, True])
@pytest.mark.parametrize("spot", [False, True])
@pytest.mark.parametrize(
    "groups",
    [
        (group(0), group(0), group(1)),
        (group(0, tensor=2), group(1, tensor=1, pipeline=2)),
        (group(0, 1), group(0, 2)),
        (group(0, 1, tensor=2), group(2)),
        (group(0, 1, 2), group(3, tensor=4)),
    ],
)
def test_a_yaml_says_the_placement_that_it_was_written_for(
    groups: Placement, spot: bool, is_cpus: bool
) -> None:
    if is_cpus:
        groups = tuple(replace(group, pipeline=1) for group in groups)
    content = service(placement(groups), models(4), spot=spot, is_cpus=is_cpus)
    written = configs.from_dict(ServeConfig, content)
    assert in_use(written, names(4)) == placement(groups)


def test_each_model_keeps_a_replica_where_none_is_taken_away() -> None:
    groups = placement([group(0), group(0), group(0), group(1)])
    written = configs.from_dict(ServeConfig, service(groups, models(2), spot=True))
    seen = {m.name: (m.replicas, m.resources.market) for m in written.models if m.engine != "pool"}
    assert seen == {"m0-stable": (1, "stable"), "m0-spot": (2, "spot"), "m1": (1, "stable")}
    (pool,) = [m for m in written.models if m.engine == "pool"]
    weights = {member["model"]: member["weight"] for member in pool.options["members"]}
    assert (pool.name, weights) == ("m0", {"m0-stable": 1.0, "m0-spot": 2.0})
    actors = {
        entry["name"]: entry["deployments"][0]["ray_actor_options"].get("label_selector")
        for entry in serve_config(written)["applications"]
        if entry["name"] not in ("gateway", "page")
    }
    assert list(actors.values()) == [
        {"ray.io/market-type": "!spot"},
        {"ray.io/market-type": "spot"},
        {"ray.io/market-type": "!spot"},
    ]
    anywhere = configs.from_dict(ServeConfig, service(groups, models(2)))
    assert {m.resources.market for m in anywhere.models} == {"any"} and len(anywhere.models) == 2


def test_a_model_that_is_not_to_be_placed_is_left_out() -> None:
    written = configs.from_dict(ServeConfig, service((group(0), group(1)), models(2)))
    assert in_use(written, names(1)) == (group(0),)


BEFORE = {
    "gateway": {"port": 8123},
    "page": {"enabled": False},
    "models": [
        {"name": "far", "engine": "remote", "options": {"base_url": "http://far/v1", "model": "x"}},
        {
            "name": "m0", "path": "mine", "engine": "vllm", "aliases": ["zero"], "replicas": 1,
            "options": {
                "lora": "l", "tensor_parallel_size": 4,
                "server_args": [
                    "--seed", "3", "--pipeline-parallel-size", "2",
                    "--gpu-memory-utilization", ".4",
                ],
            },
            "resources": {"gpus": 8.0, "cpus": 3.0, "custom": {"rack": 1.0}},
            "limits": {"max_output_tokens": 50}, "prices": {"input_usd_per_million_tokens": 2.0},
        },
    ],
}  # fmt: skip


def test_what_says_nothing_of_places_stays_as_it_was_written() -> None:
    groups = placement([group(0), group(0, tensor=1), group(1)])
    after = replaced(BEFORE, names(2), service(groups, models(2))["models"])
    assert after["gateway"] == BEFORE["gateway"] and after["page"] == BEFORE["page"]
    config = configs.from_dict(ServeConfig, after)
    far, m0, m1 = config.models
    assert (far.engine, m1.replicas, in_use(config, names(2))) == ("remote", 1, groups)
    assert (m0.path, m0.aliases, m0.replicas, m0.limits.max_output_tokens) == (
        "mine", ("zero",), 2, 50,
    )  # fmt: skip
    assert m0.options == {"lora": "l", "tensor_parallel_size": 1, "server_args": ["--seed", "3"]}
    assert (m0.resources.gpus, m0.resources.cpus, m0.resources.custom) == (1, 3, {"rack": 1.0})


@pytest.mark.parametrize(
    "arguments",
    [
        ["--pipeline-parallel-size=2", "--seed=3", "--gpu-memory-utilization=.4"],
        ["-pp", "2", "--seed=3", "--gpu_memory_utilization", ".4"],
        ["--pipeline_parallel_size=4", "--seed=3", "-pp=2", "--gpu-memory-utilization", ".4"],
    ],
)
def test_a_flag_of_places_is_read_however_vllm_lets_it_be_written(arguments: list[str]) -> None:
    options = {"tensor_parallel_size": 2, "server_args": arguments}
    entry = {"name": "m0", "path": "p", "engine": "vllm", "options": options}
    served = {"models": [{**entry, "resources": {"gpus": 4.0}}]}
    before = in_use(configs.from_dict(ServeConfig, served), names(1))
    assert before == (group(0, tensor=2, pipeline=2),)
    shared = service((group(0, 1),), models(2))["models"]
    after = configs.from_dict(ServeConfig, replaced(served, names(2), shared))
    assert after.models[0].options["server_args"] == [
        "--seed=3", "--gpu-memory-utilization", "0.450",
    ]  # fmt: skip


def test_a_custom_resource_of_somebody_elses_is_no_share_of_a_gpu() -> None:
    """Two models with a GPU half each, on nodes of one rack: one group of both."""
    resources = {"gpus": 0.5, "custom": {"rack": 1.0, "disks": 0.75}}
    entry = {"path": "p", "engine": "vllm", "resources": resources}
    served = {"models": [{**entry, "name": name} for name in names(2)]}
    assert in_use(configs.from_dict(ServeConfig, served), names(2)) == (group(0, 1),)


def test_a_model_that_becomes_a_pool_and_one_again_keeps_its_names_limits_and_prices() -> None:
    both = placement([group(0), group(0)])
    pooled = replaced(BEFORE, names(1), service(both, models(1), spot=True)["models"])
    config = configs.from_dict(ServeConfig, pooled)
    _, stable, spot, pool = config.models
    assert (pool.name, pool.aliases, stable.aliases) == ("m0", ("zero",), ())
    for one in (stable, spot):
        assert one.prices.input_usd_per_million_tokens == 2 and one.limits.max_output_tokens == 50
    assert in_use(config, names(1)) == both

    again = replaced(pooled, names(1), service((group(0),), models(1))["models"])
    _, alone = configs.from_dict(ServeConfig, again).models
    before = configs.from_dict(ServeConfig, BEFORE).models[1]
    assert (alone.name, alone.aliases, alone.limits) == ("m0", ("zero",), before.limits)
    assert (alone.prices, alone.resources.market) == (before.prices, "any")


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"path": "p", "engine": "torch"}, "give --gpus of its kind"),
        ({"path": "p", "engine": "vllm", "autoscaling": {"max_replicas": 2}}, "has autoscaling"),
        ({"engine": "pool", "options": {"joinable": True}}, "has members elsewhere"),
        ({"engine": "pool", "options": {"members": [{"model": "far"}]}}, "has members elsewhere"),
    ],
)
def test_what_no_placement_can_be_written_into_is_a_sentence(
    entry: dict[str, object], complaint: str
) -> None:
    far = BEFORE["models"][0]
    served = configs.from_dict(ServeConfig, {"models": [far, {"name": "m0", **entry}]})
    with pytest.raises(ConfigError, match=complaint):
        check(served, ["m0"], is_cpus=False)
