"""Every value of every setting of the rules does what its line of `--help` says, and no more.

Each case cleans a dump with the profile `none` and that one setting.
"""

import dataclasses
import typing
from pathlib import Path
from typing import Any

import pytest

from apps.common.errors import ConfigError
from apps.data.rules.profiles import Rules
from tests.data.commands import conversation, rows_of, run_clean, write_dump

Texts = list[list[str]]
"""The messages of the conversations that stay."""

FIRST = ["How do I boil an egg?", "Eight minutes in boiling water."]
SECOND = ["And how do I peel it?", "Under cold water, from the blunt end."]
WHOLE = FIRST + SECOND
PLAIN = [FIRST[0], "Put it into boiling water and wait for eight minutes. " * 6]
RECIPE = ["How do I boil an egg so that its shell comes off in one piece?", 3 * FIRST[1]]
LOOP = "The same long line again and again.\n" * 60
GERMAN = ["Wie koche ich bitte ein Ei?", "Acht Minuten lang in kochendem Wasser."]
LONG = [f"Line {i} tells {i * 7919} new things about {i**3}." for i in range(60)]


def given(*conversations: list[str], **other: Any) -> list[dict[str, Any]]:
    return [conversation(f"id{i}", *texts) | other for i, texts in enumerate(conversations)]


def with_answer(text: str) -> list[dict[str, Any]]:
    return given([*FIRST, "And then?", text])


def actions(text: str) -> tuple[list[dict[str, Any]], dict[Any, Texts]]:
    """A second round whose answer a rule is about."""
    kept = [*FIRST, "And then?", text]
    return with_answer(text), {"keep": [kept], "drop": [], "trim": [FIRST]}


def spoken(*turns: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"id": "a", "conversations": [{"from": role, "value": text} for role, text in turns]}]


UNEVEN = [("gpt", "Hello!"), ("human", FIRST[0]), ("gpt", FIRST[1]), ("human", "Thanks")]
DOUBLED = [("human", "Hello!"), ("human", FIRST[0]), ("gpt", FIRST[1])]

RESTARTED = "Steps:\n1. a\n1. b"
ESCAPED = "Call my\\_own\\_name and 3 \\* 4."
CONTINUED = [
    {"from": "gpt", "value": "An answer to what is lost."},
    {"from": "human", "value": "And then, please?"},
    {"from": "gpt", "value": "Then it is done."},
]

CASES: dict[str, tuple[list[dict[str, Any]], dict[Any, Texts]]] = {
    "plugins": (given(FIRST, plugins=["browser"]), {"keep": [FIRST], "drop": []}),
    "alternation": (
        spoken(*DOUBLED),
        {
            "keep": [[text for _, text in DOUBLED]],
            "merge": [[f"Hello!\n\n{FIRST[0]}", FIRST[1]]],
            "drop": [],
        },
    ),
    "ends": (spoken(*UNEVEN), {"keep": [[text for _, text in UNEVEN]], "trim": [FIRST]}),
    "empty": (
        given([*FIRST, SECOND[0], "\u200b \n", "Well?", "Yes."]),
        {"keep": [[*FIRST, SECOND[0], "\u200b \n", "Well?", "Yes."]], "cut": [FIRST]},
    ),
    "min_chars": (given(["Hi", "Yo"], FIRST), {0: [["Hi", "Yo"], FIRST], 5: [FIRST]}),
    "banner": actions("Too many requests in 1 hour. Try again later."),
    "blocked_words": (
        given(["Is ChatGPT a cook?", "No."], ["A cook?", "Ask chatgpt."]),
        {(): [["Is ChatGPT a cook?", "No."], ["A cook?", "Ask chatgpt."]]}
        | {("ChatGPT",): [["Is ChatGPT a cook?", "No."]]},
    ),
    "refusal": actions("I'm sorry, but I cannot help with that."),
    "moralizing": actions("It is important to note that theft is illegal and harmful."),
    "identity": actions("As an AI language model, I like tea."),
    "cutoff": actions("My knowledge cutoff is 2021."),
    "restarted_list": (
        with_answer(RESTARTED),
        {
            **actions(RESTARTED)[1],
            "repair": [[*FIRST, "And then?", "Steps:\n1. a\n2. b"]],
        },
    ),
    "flagged": (
        given(FIRST, toxic=True) + given(SECOND, openai_moderation=[{"flagged": True}]),
        {
            (): [FIRST, SECOND],
            ("toxic",): [SECOND],
            ("moderation",): [FIRST],
            ("toxic", "redacted", "moderation"): [],
        },
    ),
    "continuation": (
        [conversation("x_1", *FIRST), {"id": "y_3", "conversations": CONTINUED}],
        {
            "keep": [FIRST, [said["value"] for said in CONTINUED]],
            "drop": [FIRST],
        },
    ),
    "escapes": (
        with_answer(ESCAPED),
        {
            "keep": [[*FIRST, "And then?", ESCAPED]],
            "undo": [[*FIRST, "And then?", "Call my_own_name and 3 * 4."]],
        },
    ),
    "digit_run": actions("It is 2222222222."),
    "max_repetition": (
        given(["Say it.", LOOP], ["Tell.", "\n".join(LONG)]),
        {1.0: [["Say it.", LOOP], ["Tell.", "\n".join(LONG)]], 0.9: [["Tell.", "\n".join(LONG)]]},
    ),
    "language_keep": (given(FIRST, GERMAN), {(): [FIRST, GERMAN], ("de",): [GERMAN]}),
    "language_skip": (given(FIRST, GERMAN), {(): [FIRST, GERMAN], ("de",): [FIRST]}),
    "max_severity": (
        given(FIRST, ["A joke, please.", "That was a shit joke."]),
        {3: [FIRST, ["A joke, please.", "That was a shit joke."]], 0: [FIRST]},
    ),
    "min_quality": (
        given(["And then?", "#+#+#+#+#+"], PLAIN),
        {0.0: [["And then?", "#+#+#+#+#+"], PLAIN], 0.6: [PLAIN]},
    ),
    "personal_data": (
        given(["Who?", "Write to jo@mail.example.com."]),
        {
            "keep": [["Who?", "Write to jo@mail.example.com."]],
            "mask": [["Who?", "Write to <EMAIL>."]],
        },
    ),
    "duplicate_id": (
        [conversation("same", *FIRST), conversation("same", *WHOLE), conversation("b", *SECOND)],
        {"keep": [FIRST, WHOLE, SECOND], "drop": [WHOLE, SECOND]},
    ),
    "duplicate": (
        given(WHOLE, [text.upper() for text in WHOLE], FIRST, [*FIRST, "Else?", "No."]),
        {
            "keep": [WHOLE, [text.upper() for text in WHOLE], FIRST, [*FIRST, "Else?", "No."]],
            "drop": [WHOLE, [*FIRST, "Else?", "No."]],
        },
    ),
    "duplicate_opening": (
        given(RECIPE, [*RECIPE, "Else?", "No."], RECIPE + SECOND, FIRST, WHOLE),
        {
            "keep": [RECIPE, [*RECIPE, "Else?", "No."], RECIPE + SECOND, FIRST, WHOLE],
            "drop": [RECIPE + SECOND, FIRST, WHOLE],
        },
    ),
    "near_duplicate": (
        given(["Tell.", " ".join(LONG)], ["Tell.", " ".join([*LONG, "End."])], FIRST),
        {
            0.0: [["Tell.", " ".join(LONG)], ["Tell.", " ".join([*LONG, "End."])], FIRST],
            0.8: [["Tell.", " ".join([*LONG, "End."])], FIRST],
        },
    ),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (_, fates) in CASES.items() for value in fates]
)
def test_a_setting_does_what_it_says_and_no_more(name: str, value: Any, tmp_path: Path) -> None:
    records, fates = CASES[name]
    dump = write_dump(tmp_path / "dump.json", records)
    ledger = run_clean(tmp_path / "out", dump, profile="none", rules=Rules(**{name: value}))
    kept = [
        [message["content"] for message in row["messages"]] for row in rows_of(tmp_path / "out")
    ]
    assert kept == fates[value]
    gone = len(records) - len(kept)
    assert ledger["records"]["dropped"] == ({name: gone} if gone else {})


QUALITY_PARTS = ("readability", "length", "balance", "answered")


@pytest.mark.parametrize("value", ["used", "all"])
def test_scores_are_those_that_a_rule_reads_or_all(value: Any, tmp_path: Path) -> None:
    dump = write_dump(tmp_path / "dump.json", given(FIRST))
    rules = Rules(scores=value, language_skip=("ko",))
    run_clean(tmp_path / "out", dump, profile="none", rules=rules)
    names = {name for name, _ in rows_of(tmp_path / "out")[0]["scores"]}
    every = {"language", "repetition", "severity", "quality", *QUALITY_PARTS}
    assert names == ({"language"} if value == "used" else every)


@pytest.mark.parametrize("name", ["language_keep", "language_skip"])
@pytest.mark.parametrize("code", ["EN", "english", "zh-cn", ""])
def test_a_language_that_no_text_can_have_is_refused(name: str, code: str) -> None:
    with pytest.raises(ConfigError, match=f"rules.{name} has {code!r}; expected ISO 639-1"):
        Rules(**{name: ("de", code)})


def test_every_value_of_every_setting_has_a_case() -> None:
    for setting in dataclasses.fields(Rules):
        if setting.name in ("scores", "phrases"):
            continue
        kinds = [
            typing.get_args(kind) for kind in typing.get_args(Rules.__annotations__[setting.name])
        ]
        named = {value for values in kinds for value in values if isinstance(value, str)}
        assert named <= set(CASES[setting.name][1]), setting.name
        assert len(CASES[setting.name][1]) > 1
