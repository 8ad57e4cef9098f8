"""Repeated list flags add up, and every command says what is wrong in a sentence."""

import pytest

from apps.common.command.cli import run
from apps.eval.__main__ import COMMANDS


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("answer --questions built-in --out {out}", "--model NAME=URL"),
        ("answer --questions built-in --out {out} --model a=ftp://x", "no http URL"),
        ("answer --questions built-in --out {out} --model a/b=http://x", "cannot name a model"),
        ("answer --questions built-in --out {out} --model gpt-4o", "OPENAI_API_KEY is not set"),
        (
            "answer --questions built-in --out {out} --model a=http://x --lineage b=c",
            "names none of the contestants a",
        ),
        ("watch {out} --questions {out} --out {out}", "does not exist"),
        ("judge {out}", "is not an evaluation folder"),
        ("judge {out} --max-usd -1", "max_usd is -1.0; expected at least 0"),
        ("judge {out} --backend batch", "the offline judge makes no API calls"),
        ("reparse {out}", "has no judgments"),
        ("report {out}", "is not an evaluation folder"),
        ("report {out} --num-resamples 0", "num_resamples is 0"),
        ("report {out} --num-resamples -1", "num_resamples is -1"),
        ("report {out} --seed -1", "seed is -1"),
        ("contamination built-in --data {out}", "neither clean conversations"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    command: str, sentence: str, tmp_path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert run("apps.eval", COMMANDS, command.format(out=tmp_path / "x").split()) == 2
    assert sentence in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys) -> None:
    assert run("apps.eval", COMMANDS, [name, "--help"]) == 0
    told = capsys.readouterr().out
    assert COMMANDS[name].help in " ".join(told.split()) and "--log-format" in told
