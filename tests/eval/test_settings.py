"""A setting out of its range is one sentence, before anything is read or written."""

from pathlib import Path

import pytest

from apps.common.errors import ConfigError, InputError
from apps.eval.config import JudgeConfig
from apps.eval.judging.judges import find_judges
from apps.eval.judging.prices import Price, price_of
from tests.eval.commands import command

PROMPT, COMPLETION = "--usd-per-million-prompt-tokens", "--usd-per-million-completion-tokens"
JUDGE = ("judge", "{folder}", "--judge", "gpt-4o")
REPORT = ("report", "{folder}")
ANSWER = ("answer", "--questions", "built-in", "--out", "{folder}", "--model", "gpt-4o")
URL = "http://127.0.0.1:9/v1"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((*JUDGE, PROMPT, "-3", COMPLETION, "1"), "usd_per_million_prompt_tokens is -3.0"),
        ((*JUDGE, PROMPT, "1", COMPLETION, "nan"), "usd_per_million_completion_tokens is nan"),
        ((*JUDGE, PROMPT, "inf", COMPLETION, "1"), "usd_per_million_prompt_tokens is inf"),
        ((*JUDGE, "--max-usd", "nan"), "max_usd is nan"),
        ((*JUDGE, "--max-usd", "-1"), "max_usd is -1"),
        ((*JUDGE, "--max-tokens", "-5"), "max_tokens is -5"),
        ((*JUDGE, "--max-tokens", "0"), "max_tokens is 0"),
        ((*JUDGE, "--self-checks", "-2"), "self_checks is -2"),
        ((*JUDGE, "--temperature", "nan"), "temperature is nan"),
        ((*REPORT, "--num-resamples", "0"), "num_resamples is 0"),
        ((*REPORT, "--num-resamples", "-1"), "num_resamples is -1"),
        ((*REPORT, "--seed", "-1"), "seed is -1"),
        ((*ANSWER, "--temperature", "-1"), "temperature is -1"),
        ((*ANSWER, "--top-p", "nan"), "top_p is nan"),
        ((*ANSWER, "--top-p", "1.5"), "top_p is 1.5"),
        (("contamination", "built-in", "--data", "x", "--max-overlap", "nan"), "max_overlap is"),
        (("questions", "generate", "--max-baseline-score", "nan"), "max_baseline_score is nan"),
        (("watch", "x", "--questions", "q", "--out", "o", "--max-usd", "nan"), "max_usd is nan"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "eval"
    assert command(*(text.format(folder=folder) for text in arguments)) == 2
    told = capsys.readouterr().err
    assert sentence in told and "Traceback" not in told and told.count("\n") == 1
    assert not folder.exists()


def test_no_endpoint_takes_the_offline_judges_name(tmp_path: Path) -> None:
    """It would never be asked, and its verdicts would not be its own."""
    file = tmp_path / "endpoints.yaml"
    file.write_text(f"offline: {{base_url: '{URL}'}}\n")
    for config in (
        JudgeConfig(dir="x", endpoints=str(file)),
        JudgeConfig(dir="x", judge=(f"offline={URL}#llama",)),
    ):
        with pytest.raises(InputError, match="which is the judge that asks nobody"):
            find_judges(config)
    assert [*find_judges(JudgeConfig(dir="x"))] == ["offline"]


def test_a_price_that_is_typed_is_charged_for_no_judge_with_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """GPT-4o would be charged what a small local model takes, and --max-usd be passed."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    typed = {"usd_per_million_prompt_tokens": 0.1, "usd_per_million_completion_tokens": 0.1}
    local = (f"local={URL}#llama", f"other={URL}#qwen")
    for judges, told in (
        (("gpt-4o", *local), "gpt-4o too, whose price is known; give the prices of local, other"),
        (("gpt-4o", "gpt-4o-mini"), "gpt-4o, gpt-4o-mini too, .*; leave it out"),
    ):
        with pytest.raises(ConfigError, match=f"would hold for {told}"):
            find_judges(JudgeConfig(dir="x", judge=judges, max_usd=1, **typed))
    for judges in (local, ("gpt-4o",), ("gpt-4o", "offline")):
        config = JudgeConfig(dir="x", judge=judges, max_usd=1, **typed)
        priced = find_judges(config)[judges[0].partition("=")[0]].price
        assert priced and priced.usd_per_million_prompt_tokens == 0.1


def test_a_judge_in_two_places_costs_what_the_dearer_one_takes(tmp_path: Path) -> None:
    """Also where only one of them tells its price, and the other's is listed or not known."""
    file = tmp_path / "endpoints.yaml"
    cheap = "{usd_per_million_prompt_tokens: 0.1, usd_per_million_completion_tokens: 0.2}"

    def price(model: str, *others: str, max_usd: float | None = None) -> Price | None:
        file.write_text(f"j: {{base_url: '{URL}', model: {model}, prices: {cheap}}}")
        judges = ("j", *(f"j={URL}#{other}" for other in others))
        config = JudgeConfig(dir="x", judge=judges, endpoints=str(file), max_usd=max_usd)
        return find_judges(config)["j"].price

    assert price("gpt-4", max_usd=1) == Price(
        usd_per_million_prompt_tokens=0.1, usd_per_million_completion_tokens=0.2
    )
    assert price("gpt-4", "gpt-4", max_usd=1) == price_of("gpt-4")
    assert price("llama", "llama") is None
    with pytest.raises(ConfigError, match="--max-usd needs the price of j"):
        price("llama", "llama", max_usd=1)
