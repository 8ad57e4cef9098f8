import contextlib
import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from apps.common.command.events import Reporter
from apps.common.errors import ConfigError, InputError
from apps.common.files import config as configs
from apps.common.passages import Passage, write_passages
from apps.serve import __main__ as commands
from apps.serve.__main__ import RunConfig, load
from apps.serve.admission.keys import digest
from apps.serve.applications import serve_config
from apps.serve.config import (
    ApiKey,
    Autoscaling,
    GatewayConfig,
    Limits,
    ModelConfig,
    Prices,
    ServeConfig,
)
from apps.serve.engine.config import RemoteConfig
from tests.serve.service_files import file_of, two

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"engine": "magic"}, "models\\[0\\].engine"),
        ({"nme": "x"}, "did you mean 'name'"),
        ({"name": "bad name"}, "not usable"),
        ({"options": {"num_thread": 2}}, "did you mean 'num_threads'"),
        ({"options": {"max_running": 0}}, "max_running is 0; it must be from 1 to 1,024"),
        ({"options": {"max_running": 10**12}}, "max_running"),
        ({"options": {"prefill_chunk_tokens": 10**12}}, "prefill_chunk_tokens"),
        ({"options": {"kv_tokens": -1}}, "kv_tokens is -1; it must be at least 1"),
        ({"options": {"hang_timeout_s": 0}}, "hang_timeout_s"),
        ({"options": {"device": "tpu"}}, "must be cpu, cuda or cuda:N"),
        ({"options": {"path": "elsewhere"}}, "path stands beside name"),
        ({"engine": "vllm", "options": {"tensor_parallel_size": 0}}, "tensor_parallel_size"),
        ({"engine": "vllm", "options": {"base_url": "localhost:8001"}}, "http://"),
        ({"path": "/nowhere/at/all"}, "No model folder"),
        ({"autoscaling": {"min_replicas": 3, "max_replicas": 2}}, "min_replicas"),
        ({"replicas": 0}, "replicas"),
        ({"autoscaling": {"upscale_delay_s": -1}}, "upscale_delay_s"),
        ({"limits": {"queue_timeout_s": 0}}, "queue_timeout_s is 0"),
        ({"resources": {"memory_bytes": -5}}, "memory_bytes -5"),
        ({"resources": {"custom": {"tpu": -1}}}, "tpu -1"),
        ({"prices": {"input_usd_per_million_tokens": -1}}, "prices are -1"),
        ({"sampling": {"temperature": 3}}, "sampling.temperature is 3; expected 0 to 2"),
        ({"sampling": {"top_p": -0.1}}, "sampling.top_p is -0.1"),
        ({"sampling": {"temprature": 1}}, "did you mean 'temperature'"),
        ({"engine": "remote"}, "no path"),
    ],
)
def test_a_wrong_file_is_refused_with_a_sentence(
    tmp_path: Path, model_folder: Path, changes: dict, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        load(file_of(tmp_path, model_folder, **changes), None)


@pytest.mark.parametrize("engine", ["remote", "pool"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("replicas", 3),
        ("template", "vicuna"),
        ("autoscaling", {"max_replicas": 2}),
        ("resources", {"gpus": 1}),
        ("sampling", {"temperature": 0}),
    ],
)
def test_a_model_elsewhere_has_no_settings_of_replicas(
    engine: str, name: str, value: object
) -> None:
    options = (
        {"base_url": "http://h/v1", "model": "m"} if engine == "remote" else {"joinable": True}
    )
    entry = {"name": "far", "engine": engine, "options": options}
    assert configs.from_dict(ModelConfig, entry).engine == engine
    with pytest.raises(ConfigError, match=f"{name} is for models with replicas of their own"):
        configs.from_dict(ModelConfig, {**entry, name: value})


@pytest.mark.parametrize(
    ("origin", "is_one"),
    [
        *((one, True) for one in ("https://a.example", "*", "http://localhost:3000", "app://x")),
        *((one, True) for one in ("http://[::1]:3000", "chrome-extension://abc")),
        *((one, False) for one in ("a.example", "https://a.example/", "https://A.example", "")),
    ],
)
def test_sites_that_may_call_are_named_as_browsers_name_them(origin: str, is_one: bool) -> None:
    with contextlib.nullcontext() if is_one else pytest.raises(ConfigError, match="no browser"):
        GatewayConfig(cors_origins=(origin,))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/v1",
        "h/v1",
        "http://",
        "http://[h/v1",
        "http://h:99999/v1",
        "http://h:0/v1",
        "http://a b/",
    ],
)
def test_an_address_that_there_cannot_be_is_refused(url: str) -> None:
    good = "http://[::1]:8000/v1"
    assert RemoteConfig(base_url=good, model="m", health_url=good).health_url == good
    with pytest.raises(ConfigError, match="base_url is"):
        RemoteConfig(base_url=url, model="m")
    with pytest.raises(ConfigError, match="health_url is"):
        RemoteConfig(base_url=good, model="m", health_url=url)


def test_a_pool_of_itself_is_told_that_there_is_no_other_model() -> None:
    pool = ModelConfig(name="p", engine="pool", options={"members": [{"model": "p"}]})
    with pytest.raises(ConfigError, match="'p'; add a model that answers"):
        ServeConfig(models=(pool,))


def test_an_origin_that_anybody_can_take_is_refused_and_named() -> None:
    with pytest.raises(ConfigError, match="sandboxed frames of any site"):
        GatewayConfig(cors_origins=("https://a.example", "null"))


def test_weights_of_battles_are_of_models_that_there_are(model_folder: Path) -> None:
    config = two(model_folder)
    for name, is_known in (("one", True), ("oen", False)):
        page = dataclasses.replace(config.page, battle_weights={name: 0.0})
        with contextlib.nullcontext() if is_known else pytest.raises(ConfigError, match="'oen'"):
            dataclasses.replace(config, page=page)


def test_paths_are_meant_from_the_files_folder(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever starts it, wherever: keys, evaluation and indexes lie beside the file."""
    path = Path(file_of(tmp_path, model_folder))
    page = {"evaluation": "eval", "sources": {"one": "passages.db"}}
    given = {**yaml.safe_load(path.read_text()), "page": page}
    given["gateway"] = {"keys_file": "keys.yaml"}
    given["page"]["api_key_env"] = "CRIA_PAGE_KEY"
    path.write_text(yaml.safe_dump(given))
    with write_passages(str(tmp_path / "passages.db")) as writer:
        text = "eight words or more make a passage that can be found"
        writer.add(Passage(conversation="c", turn=2, role="assistant", text=text))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load(str(path), None)
    assert config.gateway.keys_file == str(tmp_path / "keys.yaml")
    assert config.page.evaluation == str(tmp_path / "eval")
    assert config.page.sources == {"one": str(tmp_path / "passages.db")}
    assert config.page.database_url == f"sqlite:///{tmp_path}/page.db"
    for url, absolute in (
        ("sqlite:///votes.db", f"sqlite:///{tmp_path}/votes.db"),
        ("sqlite:///data/votes.db", f"sqlite:///{tmp_path}/data/votes.db"),
        ("sqlite+pysqlite:///votes.db", f"sqlite+pysqlite:///{tmp_path}/votes.db"),
        ("sqlite:////srv/votes.db", "sqlite:////srv/votes.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("postgresql://cria@db/cria", "postgresql://cria@db/cria"),
    ):
        given["page"]["database_url"] = url
        path.write_text(yaml.safe_dump(given))
        assert load(str(path), None).page.database_url == absolute
    given["page"]["evaluation"] = "s3://bucket/eval"
    path.write_text(yaml.safe_dump(given))
    assert load(str(path), None).page.evaluation == "s3://bucket/eval"


def test_the_same_name_twice_is_refused(model_folder: Path) -> None:
    one = ModelConfig(name="one", path=str(model_folder), aliases=("two",))
    two = ModelConfig(name="two", path=str(model_folder))
    with pytest.raises(ConfigError, match="'two' occurs more than once"):
        ServeConfig(models=(one, two))


def test_keys_are_digests_and_the_page_needs_one_too(model_folder: Path) -> None:
    with pytest.raises(ConfigError, match="SHA-256"):
        ApiKey(name="me", sha256="secret")
    gateway = GatewayConfig(api_keys=(ApiKey(name="me", sha256="0" * 64),))
    with pytest.raises(ConfigError, match=r"page\.api_key_env"):
        ServeConfig(models=two(model_folder).models, gateway=gateway)


def test_an_open_page_has_a_key_with_limits(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them, whoever finds the page has what the key's owner has."""
    monkeypatch.setenv("CRIA_PAGE_KEY", "secret")
    path = Path(file_of(tmp_path, model_folder))
    key = {"name": "page", "sha256": digest("secret")}
    given = {**yaml.safe_load(path.read_text()), "gateway": {"api_keys": [key]}}

    def with_page(**settings: object) -> ServeConfig:
        given["page"] = {"api_key_env": "CRIA_PAGE_KEY", **settings}
        path.write_text(yaml.safe_dump(given))
        return load(str(path), None)

    with pytest.raises(ConfigError, match=r"open to everybody.*'page' has no limits.*keys add"):
        with_page()
    with_page(login_password_env="PASSWORD")
    key["concurrent_streams"] = 8
    with_page()
    monkeypatch.setenv("CRIA_PAGE_KEY", "another")
    with_page()  # which may run elsewhere, with another environment
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    none = pytest.raises(ConfigError, match="CRIA_PAGE_KEY, which holds none of the keys here")
    with none:
        commands._load_to_run(RunConfig(what=(str(path),)))
    monkeypatch.setenv("CRIA_PAGE_KEY", "secret")
    commands._load_to_run(RunConfig(what=(str(path),)))
    key["expires"] = 1.0
    with_page()
    with none:
        commands._load_to_run(RunConfig(what=(str(path),)))


def test_a_model_s_folder_in_place_of_the_file_is_told(model_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a folder; expected a YAML file that lists it"):
        load(str(model_folder), None)


def test_a_model_s_folder_lies_beside_the_file_or_where_the_command_is_started(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    path = file_of(there, Path("model"))
    monkeypatch.chdir(here)
    (here / "model").symlink_to(model_folder)
    assert load(path, None).models[0].path == str(here / "model")
    (there / "model").symlink_to(model_folder)
    assert load(path, None).models[0].path == str(there / "model")
    assert load(f"file://{path}", None).models[0].path == str(there / "model")


def test_a_file_in_a_bucket_is_looked_at_once(model_folder: Path, monkeypatch) -> None:
    """A bucket that does not answer for a moment ends no service."""
    looks = iter([False])
    naps = iter([None, None])
    monkeypatch.setattr(commands.storage, "is_dir", lambda _: next(looks))
    monkeypatch.setattr(commands, "time", SimpleNamespace(sleep=lambda _: next(naps)))
    with pytest.raises(StopIteration):
        commands._follow_file(
            RunConfig(what=("s3://bucket/serve.yaml",)), two(model_folder), Reporter("json")
        )
    assert next(naps, "all slept") == "all slept"


def test_a_replica_is_given_time_to_say_that_it_is_there() -> None:
    with pytest.raises(ConfigError, match="silence_timeout_s is 0"):
        GatewayConfig(silence_timeout_s=0.5)


@pytest.mark.parametrize("url", ["localhost:6379", "http://x", "memory://", "redis://", "redis"])
def test_limits_that_would_be_kept_nowhere_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="limits_url is no Redis"):
        GatewayConfig(limits_url=url)


@pytest.mark.parametrize(
    "url", ["", "redis://127.0.0.1:6379/3", "rediss://:secret@db:6380", "redis+unix:///run/r.sock"]
)
def test_limits_are_kept_in_any_redis(url: str) -> None:
    assert GatewayConfig(limits_url=url).limits_url == url


def test_a_change_to_one_model_changes_only_its_application(model_folder: Path) -> None:
    config = two(model_folder)
    before = {entry["name"]: entry for entry in serve_config(config)["applications"]}
    changed = dataclasses.replace(config.models[0], options={"num_threads": 2})
    after = {
        entry["name"]: entry
        for entry in serve_config(dataclasses.replace(config, models=(changed, config.models[1])))[
            "applications"
        ]
    }
    assert {name for name in before if before[name] != after[name]} == {"gateway", "model-one"}
    # The gateway takes it as user_config, which Serve hands to running replicas.
    gateways = [dict(e["gateway"], deployments=None) for e in (before, after)]
    assert gateways[0] == gateways[1]


def test_limits_and_prices_do_not_restart_a_model(model_folder: Path) -> None:
    from apps.serve.applications import serve_config

    config = two(model_folder)
    models = tuple(dataclasses.replace(m, limits=Limits(max_choices=2)) for m in config.models)
    before, after = serve_config(config), serve_config(dataclasses.replace(config, models=models))
    assert before["applications"][1:] == after["applications"][1:]
    assert before["applications"][0] != after["applications"][0]


def test_a_file_that_vanishes_changes_no_model_and_ends_nothing(
    model_folder: Path, tmp_path: Path
) -> None:
    from apps.serve.applications import serve_config

    own = shutil.copytree(model_folder, tmp_path / "model")
    before = serve_config(two(own))
    (own / "download").symlink_to(own / "gone")
    assert serve_config(two(own)) == before
    (own / "more").mkdir()
    (own / "more" / "weights").write_bytes(b"1")
    after = serve_config(two(own))
    changed = [a != b for a, b in zip(after["applications"], before["applications"], strict=True)]
    assert changed[:2] == [True, True], "a file in a folder counts, for the gateway's text too"


@pytest.mark.parametrize(
    ("options", "fields", "said"),
    [
        ({}, {}, "set joinable to true"),
        ({"members": [{"model": "none"}]}, {}, "expected one of far"),
        ({"members": [{"model": "all"}]}, {}, "expected one of far"),
        ({"members": [{"model": "far"}, {"model": "far"}]}, {}, "may stand there once"),
        ({"members": [{"model": "far", "weight": 0}]}, {}, "must be above 0"),
        ({"joinable": True}, {"path": "x"}, "no path"),
        ({"joinable": True}, {"prices": Prices(input_usd_per_million_tokens=1)}, "its members"),
    ],
)
def test_a_pool_that_cannot_be_is_refused(options: dict, fields: dict, said: str) -> None:
    remote = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
    with pytest.raises(ConfigError, match=said):
        ServeConfig(
            models=(
                ModelConfig(name="all", engine="pool", options=options, **fields),
                ModelConfig(name="far", engine="remote", options=remote),
            )
        )


@pytest.mark.parametrize(("alive", "asked", "gateways"), [(1, None, 1), (3, None, 2), (3, 4, 4)])
def test_there_are_two_gateways_where_there_are_two_machines(
    model_folder: Path, monkeypatch, alive: int, asked: int | None, gateways: int
) -> None:
    import ray

    from apps.serve.applications import serve_config
    from apps.serve.launch import with_entries

    nodes = [{"Alive": i < alive} for i in range(4)]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    config = dataclasses.replace(two(model_folder), gateway=GatewayConfig(replicas=asked))
    (gateway,) = serve_config(with_entries(config))["applications"][0]["deployments"]
    assert gateway["num_replicas"] == gateways


@pytest.mark.parametrize(
    ("fewest", "running", "state", "up"),
    [(1, 1, "RUNNING", True), (1, 0, "UNHEALTHY", False), (0, 0, "RUNNING", True),
     (0, 0, "DEPLOYING", False), (0, 0, "DEPLOY_FAILED", False), (0, 1, "DEPLOYING", True)],
)  # fmt: skip
def test_a_model_that_sleeps_at_zero_replicas_is_up(
    model_folder: Path, fewest: int, running: int, state: str, up: bool
) -> None:
    from ray.serve.schema import ApplicationStatus

    from apps.serve.directory import is_up

    scaling = Autoscaling(min_replicas=fewest)
    model = ModelConfig(name="one", path=str(model_folder), autoscaling=scaling)
    replicas = SimpleNamespace(replica_states={"RUNNING": running})
    app = SimpleNamespace(status=ApplicationStatus(state), deployments={"Model": replicas})
    assert is_up(SimpleNamespace(applications={model.application: app}), model) == up
    assert not is_up(SimpleNamespace(applications={}), model)


def test_an_empty_host_does_not_open_every_address() -> None:
    with pytest.raises(ConfigError, match="host is empty, which would be every address"):
        GatewayConfig(host="")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("10.0.0.9", "http://10.0.0.9:8000"),
        ("::", "http://[::1]:8000"),
        ("fd00::9", "http://[fd00::9]:8000"),
    ],
)
def test_the_page_asks_where_the_gateway_listens(model_folder: Path, host: str, url: str) -> None:
    config = dataclasses.replace(two(model_folder), gateway=GatewayConfig(host=host))
    (page,) = (app for app in serve_config(config)["applications"] if app["name"] == "page")
    assert page["args"]["api_url"] == f"{url}/v1"
    assert commands._addresses(config)["page"] == f"{url}/ui"


def test_a_start_that_may_take_no_time_is_refused() -> None:
    for seconds in (0.0, -5.0, float("nan")):
        with pytest.raises(ConfigError, match="start_timeout_s is"):
            RunConfig(what=("model",), start_timeout_s=seconds)
