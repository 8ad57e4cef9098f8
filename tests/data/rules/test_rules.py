"""Each rule drops what it says, keeps what looks like it, and says what it saw."""

import dataclasses

import pytest

from apps.data.read.record.layout import Turn
from apps.data.read.records import Record
from apps.data.rules import language, prose, scores
from apps.data.rules.profiles import PROFILES, Rules, none, strict, vicuna
from apps.data.rules.rules import RULES
from apps.data.rules.verdict import Drop

ROLES = ("user", "assistant")


def record(*texts: str, roles: tuple[str, ...] = ()) -> Record:
    names = roles or tuple(ROLES[i % 2] for i in range(len(texts)))
    turns = [Turn(role, text, len(text)) for role, text in zip(names, texts, strict=True)]
    return Record(id="x", source_id="x", start=0, end=0, raw=b"", turns=turns)


def verdict(name: str, given: Record, **settings: object) -> object:
    rule = RULES[name]
    chosen = dataclasses.replace(strict(), **settings)  # type: ignore[arg-type]
    scores.score(given, chosen)
    return rule(given, chosen)


def drops(name: str, given: Record, **settings: object) -> bool:
    if name == "restarted_list":  # which strict repairs
        settings = {"restarted_list": "drop", **settings}
    return isinstance(verdict(name, given, **settings), Drop)


ANSWERS = {
    "banner": (
        [
            "(!)Too many requests in 1 hour. Try again later.",
            "Something went wrong. If this issue persists",
            "network error",
            "NETWORK ERROR DUE TO HIGH TRAFFIC. PLEASE REGENERATE OR REFRESH THIS PAGE.",
            "Your session has expired. Please log in again to continue using the app.",
        ],
        [
            'The message "Too many requests in 1 hour. Try again later." means that you wait.',
            "Error codes",
            "Network errors are usually caused by a broken cable.",
            "Internal server error (500) means that the server failed.",
            "Your session has expired, says the page: log in again.",
        ],
    ),
    "blocked_words": (
        ["I am ChatGPT.", "Ask OpenAI, they know."],
        ["```python\nimport openai\n```", "See https://openai.com/docs", "Reopenaide is no word"],
    ),
    "refusal": (
        [
            "I'm sorry, but I cannot help with that.",
            "As an AI language model, I cannot provide that.",
            "I\u2019m sorry, but I can\u2019t assist with that.",
            "I'm sorry, but I don't feel comfortable with that.",
            "I apologize, but as an AI I have no body.",
        ],
        [
            "I'm sorry to hear that! Here is a plan.",
            "You cannot divide by zero.",
            "I can help with that.",
            "I'm sorry, I made a mistake in my last answer. Here is the corrected code.",
            "I apologize, I misunderstood your question. It is four.",
        ],
    ),
    "moralizing": (
        [
            "Sure. It is important to note that hacking is illegal and harmful.",
            "I don't condone that.",
            "I don\u2019t condone that.",
        ],
        [
            "It is important to note that water boils at 100 degrees.",
            "Promote the pawn to a queen.",
        ],
    ),
    "identity": (
        [
            "I am ChatGPT, at your service.",
            "As an AI language model, I like tea.",
            "I was trained by people.",
        ],
        [
            "You are an engineer.",
            "The model was trained by a team.",
            "I am an assistant cook in this story.",
        ],
    ),
    "cutoff": (
        [
            "My knowledge cutoff is 2021.",
            "As of my last update, it is so.",
            "Up to September 2021 it was.",
            "As of my last knowledge update, it is so.",
        ],
        [
            "Use a low-pass filter with a 5 kHz cutoff.",
            "In September 2021 the law changed.",
            "Much has changed since my last visit to Paris.",
        ],
    ),
    "restarted_list": (
        ["Steps:\n1. a\n1. b", "1. a\n\n   more\n\n1. b"],
        ["First:\n1. a\n2. b\n\nThen:\n1. c", "One:\n1. a\n\nTwo:\n1. b", "```\n1. a\n1. b\n```"],
    ),
    "digit_run": (["It is 1000000000.", "2222222222"], ["It is 123456789012.", "100000000"]),
    "max_repetition": (
        ["The same long line again and again.\n" * 60, "ha " * 900],
        ["\n".join(f"Line {i} tells {i * 7919} new things about {i**3}." for i in range(60))],
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_rule_about_answers_drops_and_keeps(name: str) -> None:
    bad, good = ANSWERS[name]
    question = "Please tell me something about this."
    assert [text for text in bad if not drops(name, record(question, text))] == []
    assert [text for text in good if drops(name, record(question, text))] == []


@pytest.mark.parametrize("name", ["banner", "blocked_words", "refusal", "identity", "cutoff"])
def test_what_people_say_drops_nothing(name: str) -> None:
    for text in ANSWERS[name][0]:
        assert not drops(name, record(text, "Here is my answer."))


def test_trim_takes_the_round_out_and_leaves_the_others() -> None:
    given = record("a", "fine", "b", "I'm sorry, but I cannot help.", "c", "good")
    kept = verdict("refusal", given, refusal="trim")
    assert isinstance(kept, list)
    assert [turn.text for turn in kept] == ["a", "fine", "c", "good"]


def test_ends_leaves_rounds_only() -> None:
    given = record(
        "0", "1", "2", "3", "4", roles=("assistant", "assistant", "user", "assistant", "user")
    )
    kept = verdict("ends", given)
    assert isinstance(kept, list)
    assert [turn.text for turn in kept] == ["2", "3"]
    whole = record("s", "2", "3", roles=("system", "user", "assistant"))
    assert verdict("ends", whole) is None


def test_a_conversation_is_cut_at_its_first_empty_turn() -> None:
    kept = verdict("empty", record("a", "b", "c", "\u200b \n", "e", "f"))
    assert isinstance(kept, list)
    assert [turn.text for turn in kept] == ["a", "b"]
    assert verdict("empty", record("\u200bstarts with a zero-width space", "\n\nb")) is None


def test_an_empty_system_message_costs_itself_only() -> None:
    roles = ("system", "user", "assistant", "user", "assistant")
    kept = verdict("empty", record(" ", "a", "b", "", "c", roles=roles))
    assert isinstance(kept, list)
    assert [(turn.role, turn.text) for turn in kept] == [("user", "a"), ("assistant", "b")]
    assert verdict("empty", record("be brief", "a", "b", roles=roles[:3])) is None


def test_alternation_drops_or_merges() -> None:
    given = record("a", "b", "c", roles=("user", "user", "assistant"))
    assert drops("alternation", given)
    merged = verdict("alternation", given, alternation="merge")
    assert isinstance(merged, list)
    assert [(turn.role, turn.text, turn.num_raw) for turn in merged] == [
        ("user", "a\n\nb", 2),
        ("assistant", "c", 1),
    ]
    assert drops("alternation", record("a", "b", "c", roles=("user", "system", "assistant")))


def test_language_is_that_of_the_prose() -> None:
    code = "```python\n" + "for value in values: print(value, end='the')\n" * 20 + "```"
    german = f"Wie kann ich diese Schleife bitte schneller machen?\n{code}"
    given = record(german, f"Nimm eine Liste statt der Schleife, das ist viel schneller.\n{code}")
    assert drops("language_keep", given, language_keep=("en",))
    assert given.language == "de"
    assert not drops("language_skip", given, language_skip=("ko",))
    assert drops(
        "language_skip",
        record(
            "안녕하세요, 오늘 날씨가 어떻습니까? 알려 주세요.", "네, 오늘 날씨는 아주 좋습니다."
        ),
        language_skip=("ko",),
    )
    assert not drops("language_keep", record("ok?", "ok."), language_keep=("en",))


def test_a_short_text_is_measured_in_its_own_script() -> None:
    assert drops("min_chars", record("你好", "好"), min_chars=16)
    assert not drops("min_chars", record("什么是名词？", "一种词。"), min_chars=16)
    assert drops("min_chars", record("Hi there", "Hello"), min_chars=16)


def test_prose_is_without_code_and_links() -> None:
    text = "a `code` b https://x.y/z c\n```\nfence\n```\nd\n~~~\nopen"
    assert prose.of(text).split() == ["a", "b", "c", "d"]


def test_severity_is_measured_against_the_profile() -> None:
    crude = record("Tell me a joke, please.", "That was a shit joke.")
    assert not drops("max_severity", crude, max_severity=1)
    assert crude.scores["severity"] == 1
    assert drops("max_severity", record("q", "That was a shit joke."), max_severity=0)


def test_profiles_fill_every_rule() -> None:
    for name, profile in PROFILES.items():
        unset = [f.name for f in dataclasses.fields(Rules) if getattr(profile(), f.name) is None]
        assert (name, unset) == (name, [])


def test_own_settings_win_over_the_profile() -> None:
    assert Rules(min_chars=0, refusal="trim").over(vicuna()).min_chars == 0
    assert Rules(min_chars=0).over(vicuna()).banner == "drop"


def test_the_none_profile_changes_nothing() -> None:
    given = record("a", "Too many requests in 1 hour. Try again later.", "chatgpt")
    scores.score(given, none())
    assert [rule(given, none()) for rule in RULES.values()] == [None] * len(RULES)
    assert given.scores == {}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("你好", "zh"),
        ("パン屋", "ja"),
        ("日本語です", "ja"),
        ("안녕", "ko"),
        ("สวัสดี", "th"),
        ("γεια", "el"),
        ("שלום", "he"),
        ("नमस्ते", "hi"),
        ("привет", None),
        ("用Python写快速排序", "zh"),
        ("GPT是什么?", "zh"),
        ("Say 你好", None),
        ("What is Δ?", None),
        ("ok", None),
        ("é", None),
        ("42!", None),
        ("", None),
    ],
)
def test_a_short_turn_is_judged_by_its_script(text: str, code: str | None) -> None:
    assert language.of([text])[0] == code


def test_a_detector_that_is_not_sure_says_so() -> None:
    sure = language.of(["The quick brown fox jumps over the lazy dog, and the dog sleeps on."])
    assert sure[0] == "en" and sure[1] > 0.8
    assert language.of(["asdkjh qwlkej zxmcnb rtyu vbnm ghjk 12 wert"])[1] < 0.6
    assert language.of(["你好", *[sure[0] or ""] * 3]) == ("zh", 1.0)


def test_quality_sees_one_bad_part() -> None:
    text = "A noun is a word for a thing, a being or an idea. It often has an article. " * 4
    good = quality("What is a noun?", text)
    assert good > 0.9
    assert quality("What is a noun?", "A word.") < 0.75
    assert quality("What is a noun?", "I'm sorry, but I cannot help with that. " + text) < 0.6
    assert quality("What is a noun? " * 900, text) < good - 0.1
    assert quality("Was ist ein Nomen?", "#$%&/()=?" * 40) < 0.6
    assert quality("什么是名词？", "名词是表示人、事物或者概念的词。" * 20) > 0.75


def quality(*texts: str) -> float:
    given = record(*texts)
    scores.score(given, strict())
    return given.scores["quality"]


def test_a_limit_of_quality_drops_what_is_below() -> None:
    assert drops("min_quality", record("What is it?", "No."), min_quality=0.8)
    assert not drops("min_quality", record("What is it?", "No."), min_quality=0.0)


@pytest.mark.parametrize("rule", ["ends", "alternation"])
@pytest.mark.parametrize("alternation", ["drop", "merge"])
def test_several_system_turns_at_the_head_are_one(rule: str, alternation: str) -> None:
    roles = ("system", "system", "user", "assistant")
    given = record("Be terse.", "Answer in German.", "Hi", "Hallo", roles=roles)
    turns = verdict(rule, given, alternation=alternation)
    assert isinstance(turns, list)
    assert [(turn.role, turn.text, turn.num_raw) for turn in turns] == [
        ("system", "Be terse.\n\nAnswer in German.", 2),
        ("user", "Hi", 1),
        ("assistant", "Hallo", 1),
    ]


def test_a_head_of_several_system_turns_is_cut_like_one() -> None:
    roles = ("system", "system", "assistant", "user", "assistant", "user")
    turns = verdict("ends", record(*"abcdef", roles=roles))
    assert isinstance(turns, list)
    assert [turn.text for turn in turns] == ["a\n\nb", "d", "e"]
    assert drops("alternation", record(*"abcdef", roles=(*roles[:5], "system")))
