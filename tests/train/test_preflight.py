"""Everything a user can get wrong ends in one sentence and exit code 2, before Ray starts."""

import importlib.util
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from apps.common.command import cli
from apps.common.errors import InputError
from apps.common.files import config as configs
from apps.common.files import storage
from apps.common.packs import open_pack
from apps.train import preflight, run
from apps.train.__main__ import COMMANDS
from apps.train.checkpoint import checkpoint
from apps.train.checkpoint.origin import check_origin
from apps.train.config import RopeConfig
from apps.train.model import precision
from apps.train.model.shape import from_config
from tests.made import sentencepiece_folder
from tests.train.conftest import save_model, save_pack


@pytest.fixture
def refuse(small_base, small_pack, tmp_path, capsys):
    """Run with settings overridden; returns what was printed on standard error."""

    def refused(*flags: str, exit_code: int = 2, **places: object) -> str:
        given = {"base": small_base, "data": small_pack, "out": tmp_path / "run"} | places
        where = [part for name, value in given.items() for part in (f"--{name}", str(value))]
        argv = ["run", "--preset", "debug", "--max-length", "128", "--steps", "4", *where, *flags]
        capsys.readouterr()
        assert cli.run("apps.train", COMMANDS, argv) == exit_code
        error = capsys.readouterr().err.strip()
        assert "\n" not in error
        return error

    return refused


def test_a_missing_pack(refuse, tmp_path) -> None:
    assert "holds no pack.json; expected a folder made by" in refuse(data=tmp_path / "none")


def test_an_unfinished_pack(refuse, small_pack, tmp_path) -> None:
    shutil.copytree(small_pack, tmp_path / "pack")
    (tmp_path / "pack/COMMITTED.json").unlink()
    assert "is not finished" in refuse(data=tmp_path / "pack", exit_code=1)


def test_a_missing_base(refuse, tmp_path) -> None:
    assert "expected a local folder, s3://, gs:// or a hub id" in refuse(base=tmp_path / "none")


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_more_top_layers_than_there_are(refuse, adapter) -> None:
    error = refuse("--top-layers", "3", "--adapter", adapter)
    assert "top_layers is 3 and the model has 2 decoder layers" in error


@pytest.mark.parametrize("flags", [(), ("--top-layers", "1", "--adapter", "lora")])
def test_a_base_to_keep_to_that_is_not_at_hand(refuse, flags) -> None:
    error = refuse("--keep-base", "1", *flags)
    assert "keep_base 1 asks the base's own upper layers, which are at hand where" in error
    assert "keep_base is -1" in refuse("--keep-base", "-1")


def test_a_base_with_pickled_weights(refuse, small_base, tmp_path) -> None:
    shutil.copytree(small_base, tmp_path / "base")
    (tmp_path / "base/model.safetensors").rename(tmp_path / "base/pytorch_model.bin")
    assert "can run code when they are read; convert them" in refuse(base=tmp_path / "base")


def test_a_base_that_brings_its_own_code_is_refused_and_not_run(
    refuse, small_base, tmp_path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(small_base, base)
    settings = json.loads((base / "config.json").read_text())
    code = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    settings |= {"model_type": "own", "auto_map": code}
    (base / "config.json").write_text(json.dumps(settings))
    (base / "own.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')")
    assert "expected a model of the LLaMA family, without code of its own" in refuse(base=base)
    assert not (tmp_path / "it ran").exists()
    (base / "config.json").write_text("{")
    assert f"The config.json of {base} cannot be used" in refuse(base=base)


def test_another_tokenizer(refuse, tmp_path) -> None:
    sentencepiece_folder(tmp_path / "base")
    save_model(tmp_path / "base")
    assert "was packed with another tokenizer" in refuse(base=tmp_path / "base")


def test_tokens_that_have_no_embedding(refuse, small_base, tmp_path) -> None:
    shutil.copytree(small_base, tmp_path / "base")
    save_model(tmp_path / "base", vocab_size=2)
    said = refuse(base=tmp_path / "base")
    assert "but" in said and "has 2 embeddings; give --resize-embeddings" in said


def test_another_row_length(refuse) -> None:
    assert "pack again with --max-length 64" in refuse("--max-length", "64")


def test_rows_longer_than_the_model_reaches(refuse, small_base, tmp_path) -> None:
    shutil.copytree(small_base, tmp_path / "base")
    save_model(tmp_path / "base", max_position_embeddings=100)
    assert "--rope.kind linear --rope.factor 2" in refuse(base=tmp_path / "base")
    save_model(tmp_path / "base", max_position_embeddings=30)
    asked = ("--rope.kind", "linear", "--rope.factor", "2")
    said = refuse(*asked, base=tmp_path / "base")
    assert "reaches 60" in said and "--rope.factor 5" in said


def test_more_workers_than_rows(refuse) -> None:
    assert "8 workers share 4 rows a step" in refuse("--workers", "8")


def test_a_setting_that_does_not_exist(refuse, tmp_path) -> None:
    (tmp_path / "run.yaml").write_text("optimm: {lr: 1}\n")
    assert "did you mean 'optim'" in refuse("--config", str(tmp_path / "run.yaml"))


def test_a_disk_that_is_too_small(refuse, monkeypatch) -> None:
    usage = shutil.disk_usage("/")
    full = usage._replace(free=1000) if hasattr(usage, "_replace") else (1, 1, 1000)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: full)
    sentence = refuse()
    assert "has 1.0 kB free, but 3 checkpoints take" in sentence
    assert " 0.0 " not in sentence


def test_a_disk_that_holds_a_run_has_room_to_resume_it(started, monkeypatch) -> None:
    """Two checkpoints are kept of which one is there: its room is not asked for again."""
    kept = replace(started, checkpoint=replace(started.checkpoint, keep_last=2))
    shape = from_config(json.loads((Path(kept.base) / "config.json").read_text()))
    state_bytes = 12 * shape.num_parameters
    there = Path(checkpoint.folder(kept.out))
    (there / "step-00000002/shard").write_bytes(bytes(state_bytes))
    usage = shutil.disk_usage("/")
    for free, fits in ((2 * state_bytes, True), (2 * state_bytes - 100_000, False)):
        given = usage._replace(free=free)
        monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path, given=given: given)
        if fits:
            assert preflight.prepare(kept).done_step == 2
        else:
            with pytest.raises(InputError, match="3 checkpoints take"):
                preflight.prepare(kept)


def test_an_out_that_cannot_be_written(refuse, tmp_path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written (Not a directory); choose another" in refuse(
        out=tmp_path / "file/run"
    )


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--optim.lr", "nan", "optim.lr is nan; expected more than 0"),
        ("--optim.clip-norm", "-1", "optim.clip_norm is -1.0; expected at least 0"),
        ("--checkpoint.interval-s", "0", "checkpoint.interval_s is 0.0; expected more than 0"),
        ("--faults.collective-timeout-s", "0", "collective_timeout_s is 0.0; expected at least 1"),
        ("--metrics.val-rows", "-1", "metrics.val_rows is -1; expected at least 0"),
        ("--lora.rank", "0", "lora.rank is 0; expected at least 1"),
        ("--epochs", "inf", "epochs is inf; expected more than 0"),
        ("--seed", "-1", "seed is -1; expected at least 0"),
    ],
)
def test_a_number_out_of_range(refuse, flag, value, expected) -> None:
    assert expected in refuse(flag, value)


def test_an_adapter_for_layers_that_are_not_there(refuse) -> None:
    said = refuse("--adapter", "lora", "--lora.targets", "q_proj", "query")
    assert "lora.targets query name no linear layer of this model; expected some of down" in said


def test_a_strategy_whose_package_is_not_there(refuse, monkeypatch) -> None:
    find = importlib.util.find_spec
    there = {"deepspeed": None}
    monkeypatch.setattr(
        preflight.importlib.util, "find_spec", lambda name: there.get(name, name) and find(name)
    )
    assert "pip install deepspeed" in refuse("--strategy", "deepspeed")


def start(config):
    """Leave a checkpoint of step 2."""
    prepared = preflight.prepare(config)
    uri = storage.join(checkpoint.folder(config.out), "step-00000002")
    storage.commit(uri, {**prepared.commit, "step": 2, "files": {}})
    return config


@pytest.fixture
def started(small_run):
    """A run with a checkpoint of step 2."""
    return start(small_run)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 7}, "seed 0, now it is 7"),
        ({"steps": 9}, "num_steps 8, now it is 9"),
        ({"global_batch_rows": 12}, "global_batch_rows 6, now it is 12"),
        ({"precision": "bf16"}, "precision fp32, now it is bf16"),
        ({"optim": {"lr": 1.0}}, "optim.lr 0.002, now it is 1.0"),
    ],
)
def test_a_resume_with_other_mathematics_names_the_setting(started, changes, named) -> None:
    if "optim" in changes:
        changes = {"optim": replace(started.optim, **changes["optim"])}
    changed = replace(started, **changes)
    with pytest.raises(ValueError, match=named) as caught:
        preflight.prepare(changed)
    assert "--allow-change" in str(caught.value)
    assert preflight.prepare(replace(changed, allow_change=True)).done_step == 2


def test_a_setting_that_is_no_more_is_named_too(started) -> None:
    (found,) = checkpoint.committed(started.out)
    optim = {**found.commit["identity"]["optim"], "momentum": None}
    identity = {**found.commit["identity"], "optim": optim}
    storage.commit(found.uri, {**found.commit, "identity": identity})
    with pytest.raises(ValueError, match=r"optim.momentum None, now it is not set; use its old"):
        preflight.prepare(started)


def test_a_run_that_was_begun_with_what_nothing_read_goes_on_without_it(started) -> None:
    (saved,) = checkpoint.committed(started.out)
    identity = saved.commit["identity"]
    stray = {"lora": {**identity["lora"], "rank": 4}, "rope": {**identity["rope"], "factor": 4.0}}
    storage.commit(saved.uri, {**saved.commit, "identity": {**identity, **stray}})
    assert preflight.prepare(started).done_step == 2
    assert preflight.prepare(replace(started, allow_change=True)).done_step == 2
    (saved,) = checkpoint.committed(started.out)
    check_origin(saved, started, started.base, open_pack(started.data).info, with_weights=False)
    extended = replace(started, rope=RopeConfig(kind="linear", factor=4.0))
    with pytest.raises(ValueError, match=r"rope.kind none, now it is linear"):
        preflight.prepare(extended)
    with pytest.raises(ValueError, match=r"adapter none, now it is lora"):
        preflight.prepare(replace(started, adapter="lora"))


@pytest.mark.parametrize(("has_bf16", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_precision_auto_is_settled_before_the_run_and_is_then_its_mathematics(
    small_run, monkeypatch, has_bf16, chosen
) -> None:
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: has_bf16)
    run = replace(small_run, precision="auto")
    assert start(run) and preflight.prepare(run).config.precision == chosen
    assert preflight.prepare(replace(run, precision=chosen)).done_step == 2
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: not has_bf16)
    with pytest.raises(ValueError, match=f"started with precision {chosen}, now it is "):
        preflight.prepare(run)


def test_a_resume_with_other_data_or_another_base_is_refused(
    started, small_base, small_pack, tmp_path
) -> None:
    shutil.copytree(small_base, tmp_path / "base")
    save_model(tmp_path / "base", intermediate_size=64)
    with pytest.raises(ValueError, match="another base model"):
        preflight.prepare(replace(started, base=str(tmp_path / "base")))
    save_pack(tmp_path / "pack", small_base, num_rows=21, row_tokens=128, template="llama-2")
    before, now = (open_pack(str(p)).info.digest for p in (small_pack, tmp_path / "pack"))
    with pytest.raises(ValueError, match=f"other data .digest {before}., now it is {now}"):
        preflight.prepare(replace(started, data=str(tmp_path / "pack")))
    assert preflight.prepare(started).commit["identity"]["data"] == before


def test_an_adapter_is_not_resumed_beside_weights_of_another_training(
    small_run, small_base, tmp_path
) -> None:
    """Of the same shape, in files of the same size, under the same name."""
    shutil.copytree(small_base, tmp_path / "base")
    adapted = start(replace(small_run, base=str(tmp_path / "base"), adapter="lora"))
    assert preflight.prepare(adapted).done_step == 2
    weights = load_file(tmp_path / "base/model.safetensors")
    weights = {name: weight + 1e-3 for name, weight in weights.items()}
    save_file(weights, tmp_path / "base/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="another base model"):
        preflight.prepare(adapted)


def test_what_does_not_change_the_mathematics_may_change(started) -> None:
    changed = replace(started, workers=3, micro_batch_rows=1, activation_checkpointing="full")
    assert preflight.prepare(changed).done_step == 2


def test_a_checkpoint_that_has_lost_its_index_is_left_to_the_workers_to_skip(started) -> None:
    (saved,) = checkpoint.committed(started.out)
    files = {".metadata": {"bytes": 9, "xxh3": "not looked at"}}
    storage.commit(saved.uri, {**saved.commit, "files": files})
    changed = replace(started, adapter="lora", allow_change=True)
    assert preflight.prepare(changed).done_step == 2


@pytest.fixture
def finished(small_run):
    """A run whose last checkpoint has a shard of 100 bytes."""
    prepared = preflight.prepare(small_run)
    uri = storage.join(checkpoint.folder(small_run.out), "step-00000008")
    storage.write_atomic(storage.join(uri, "shard"), bytes(100))
    files = {"shard": {"bytes": 100, "xxh3": "not looked at"}}
    storage.commit(uri, {**prepared.commit, "step": 8, "files": files})
    records = [{"step": n, "loss": 9.0 - n, "tokens": 10 * n, "seconds": n} for n in range(1, 9)]
    lines = [json.dumps(record) for record in records]
    storage.write_atomic(storage.join(small_run.out, "metrics.jsonl"), "\n".join(lines).encode())
    return small_run


def test_a_finished_run_says_so_without_starting_ray_or_reading_its_state(
    finished, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr("apps.train.run.ray_session", pytest.fail)
    settings = tmp_path / "run.yaml"
    settings.write_text(configs.dump(finished))
    places = [f"--{name}={getattr(finished, name)}" for name in ("base", "data", "out")]
    argv = ["run", "--config", str(settings), *places, "--log-format", "json"]
    assert cli.run("apps.train", COMMANDS, argv) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said[0]["text"] == f"{finished.out} is already finished."
    done = said[1]
    assert (done["event"], done["first_loss"], done["loss"]) == ("train.done", 8.0, 1.0)
    cost = json.loads((Path(finished.out) / "cost.json").read_text())
    assert cost["machines"][0]["hours"] == pytest.approx(8 / 3600, abs=1e-4)


def test_a_run_that_ended_by_its_patience_is_finished_too(finished) -> None:
    """Until it is given more of it."""
    metrics = replace(finished.metrics, val_every_steps=1, patience=2)
    prepared = preflight.prepare(replace(finished, steps=12, metrics=metrics, allow_change=True))
    assert run._finished(prepared) is None
    (saved,) = checkpoint.committed(finished.out)
    storage.commit(saved.uri, {**saved.commit, "num_worse": 2})
    assert (run._finished(prepared) or {}).get("step") == 8
    patient = replace(prepared.config, metrics=replace(metrics, patience=3))
    assert run._finished(replace(prepared, config=patient)) is None
    other_rows = {**prepared.commit, "validated_on": "1 rows of another pack"}
    assert run._finished(replace(prepared, commit=other_rows)) is None


def test_a_run_whose_last_checkpoint_is_cut_short_is_not_finished(finished) -> None:
    prepared = preflight.prepare(finished)
    assert run._finished(prepared) is not None
    (Path(finished.out) / "checkpoints/step-00000008/shard").write_bytes(bytes(99))
    assert run._finished(prepared) is None


def test_a_base_whose_weights_are_not_those_of_its_config(refuse, small_base, tmp_path) -> None:
    """One is missing, has another shape, or is in no file that the index names."""
    shutil.copytree(small_base, tmp_path / "base")
    stored = tmp_path / "base/model.safetensors"
    whole = load_file(stored)
    name = "model.layers.1.mlp.up_proj.weight"
    for changed, said in (
        ({n: w for n, w in whole.items() if n != name}, f"lacks 1 weights .* first {name}"),
        ({**whole, name: whole[name][:-1].clone()}, f"{name} in .* has shape .*; the config says"),
    ):
        save_file(changed, stored, metadata={"format": "pt"})
        assert re.search(said, refuse(base=tmp_path / "base"))
    save_file({n: w for n, w in whole.items() if n != name}, tmp_path / "base/one.safetensors")
    stored.unlink()
    index = {"weight_map": dict.fromkeys(whole, "one.safetensors")}
    (tmp_path / "base/model.safetensors.index.json").write_text(json.dumps(index))
    assert re.search(
        f"index of .* names {name} .* does not hold it", refuse(base=tmp_path / "base")
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--lora.rank", "4"], "lora.rank is 4 and nothing reads it without --adapter lora"),
        (["--rope.factor", "4"], "give that too, or leave --rope.factor at its default, 1.0."),
        (["--rope.factor", "4"], "rope.factor is 4.0 and nothing reads it without --rope.kind lin"),
        (["--faults.spike-factor", "2"], "without --faults.on-spike skip; give that too"),
        (["--metrics.sample-prompts", "Hi?"], "without --metrics.sample-every-steps"),
    ],
)
def test_what_nothing_would_read(refuse, tmp_path, capsys, flags, said) -> None:
    assert said in refuse(*flags)
    assert not (tmp_path / "run").exists()
    is_read = "--lora.rank" in flags  # the remedy `--adapter lora` of a plan is of this rank
    code = cli.run("apps.train", COMMANDS, ["plan", "--preset", "debug", *flags])
    assert code == (0 if is_read else 2)
    assert is_read or said in capsys.readouterr().err


def test_a_preset_s_switch_is_turned_off_as_the_refusal_says(capsys) -> None:
    argv = ["plan", "--preset", "vicuna-7b-16k", "--rope.kind", "none", "--max-length", "2048"]
    assert cli.run("apps.train", COMMANDS, argv) == 2
    assert "leave --rope.factor at its default, 1.0." in capsys.readouterr().err
    assert cli.run("apps.train", COMMANDS, [*argv, "--rope.factor", "1.0"]) == 0


def test_an_out_that_is_not_a_run(refuse, small_base, small_pack, tmp_path) -> None:
    """A model, the base itself, and the folder of another command keep their files."""
    shutil.copytree(small_base, tmp_path / "model")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack/config.yaml").write_text("max_length: 128\nout: pack\n")
    for folder, theirs in (
        (tmp_path / "model", "config.json"),
        (small_base, "config.json"),
        (tmp_path / "pack", "config.yaml"),
    ):
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert f"holds a {theirs} that this command has not written" in refuse(out=folder)
        assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("judge", ["--checkpoint.keep-best", "--metrics.patience"])
def test_judging_by_rows_that_are_not_there(refuse, small_base, tmp_path, judge) -> None:
    save_pack(
        tmp_path / "pack", small_base, num_rows=9, row_tokens=128, template="llama-2", num_val=0
    )
    flags = [judge, "--metrics.val-every-steps", "1"]
    if judge == "--metrics.patience":
        flags.insert(1, "2")
    said = refuse(*flags, data=tmp_path / "pack")
    assert "has no validation rows, and checkpoint.keep_best and metrics.patience judge" in said
