from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.common.errors import ConfigError, CorruptError
from apps.common.files import config


@dataclass(frozen=True, kw_only=True, slots=True)
class Optim:
    lr: float = 1e-3
    kind: Literal["adamw", "sgd"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.95)


class Pace(Enum):
    FAST = "fast"


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    data: tuple[str, ...]
    steps: int | None = None
    compile: bool = False
    pace: Pace = Pace.FAST
    optim: Optim = field(default_factory=Optim)


@given(
    data=st.lists(st.text(), max_size=3),
    steps=st.none() | st.integers(),
    lr=st.floats(allow_nan=False),
    kind=st.sampled_from(["adamw", "sgd"]),
)
def test_from_dict_inverts_to_dict(data, steps, lr, kind):
    run = Run(data=tuple(data), steps=steps, optim=Optim(lr=lr, kind=kind))
    assert config.from_dict(Run, config.to_dict(run)) == run


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"data": [], "stesp": 3}, "'stesp' is unknown; did you mean 'steps'"),
        ({"data": [], "optim": {"LR": 3}}, "'optim.LR' is unknown"),
        ({"data": [], "optim": {"kind": "adam"}}, "'optim.kind' is 'adam'; expected one of"),
        ({"data": [], "steps": True}, "'steps' is True (bool); expected int"),
        ({"data": [], "optim": {"betas": [1, 2, 3]}}, "'optim.betas' has 3 items; expected 2"),
        ({}, "'data' is missing"),
        ({"data": [], "optim": {"lr": 10**400}}, "expected a number (float)"),
        ({"data": [], "optim": {"lr": [10**5000]}}, "'optim.lr' is too long to show (list)"),
        ({"data": [], "compile": "x" * 1000}, "xxx... (str); expected bool"),
        ({"data": [], "pace": "slow"}, "'pace' is 'slow'; expected one of ['fast']"),
        (["data"], "expected a mapping of settings"),
    ],
)
def test_a_wrong_setting_is_named_in_one_sentence(values, sentence):
    with pytest.raises(ConfigError) as error:
        config.from_dict(Run, values)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "when: 2025-13-45",
        "n: 0x_",
        "n: " + "9" * 5000,
        "n: " + "[" * 2000,
        "\xe9",
        "a: [",
        "n: 1\nn: 2",
    ],
    ids=["date", "hex", "digits", "brackets", "latin-1", "open", "twice"],
)
def test_yaml_that_cannot_be_read_is_one_sentence(tmp_path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as error:
        config.load(Run, str(path))
    assert "is not valid YAML" in str(error.value) and len(str(error.value)) < 600


def test_a_merged_key_may_be_said_again(tmp_path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("a: {b: &b {<<: {x: 1, y: 1}, x: 2}}\nc: {<<: *b, y: 3}\n")
    assert config.load_yaml(str(path)) == {"a": {"b": {"x": 2, "y": 1}}, "c": {"x": 2, "y": 3}}


@pytest.mark.parametrize("text", [b"{", b"", b"\xff\xfe"])
def test_json_that_cannot_be_read_is_one_sentence(tmp_path, text: bytes) -> None:
    (tmp_path / "run.json").write_bytes(text)
    with pytest.raises(CorruptError, match=r"run\.json is no JSON .*; mend or delete it"):
        config.read_json(Run, str(tmp_path / "run.json"))


def test_equal_settings_have_equal_digests_and_others_differ():
    one, two = Run(data=("a",)), Run(data=("a",))
    assert config.digest(one) == config.digest(two) != config.digest(Run(data=("b",)))


def test_settings_of_a_refused_run_go_and_those_of_one_that_has_begun_stay(tmp_path):
    config.write_resolved(Run(data=("a",), steps=7), str(tmp_path))
    (tmp_path / "part").touch()
    config.forget_resolved(str(tmp_path))
    assert (tmp_path / "config.yaml").exists()
    (tmp_path / "part").unlink()
    config.forget_resolved(str(tmp_path))
    config.forget_resolved(str(tmp_path / "none"))
    assert not any(tmp_path.iterdir())


def test_resolved_settings_read_back_as_written(tmp_path):
    run = Run(data=("a", "b"), steps=7)
    config.write_resolved(run, str(tmp_path))
    assert config.load(Run, str(tmp_path / "config.yaml")) == run
