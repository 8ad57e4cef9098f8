"""Why a reply ended, in one word, and where an unopened thought in it ends."""

import pytest

from apps.eval.calls import styles
from apps.eval.calls.reply import part_thoughts, plain_reason
from apps.eval.protocols.parsing import parse

MENTION = "Models such as R1 close their thoughts with `</think>`, and then answer."


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        *((word, "length") for word in ("length", "max_tokens", "MAX_TOKENS", "model_length")),
        *((word, "error") for word in ("error", "abort", "insufficient_system_resource")),
        *((word, "stop") for word in ("stop", "STOP", "eos_token", "end_turn", "COMPLETE")),
        *((word, "content_filter") for word in ("content_filter", "SAFETY", "refusal")),
        ("content_filter: PROHIBITED_CONTENT", "content_filter"),
        ("tool_calls", "tool_calls"),
    ],
)
def test_words_for_the_same_reason_are_one(said: str, reason: str) -> None:
    assert plain_reason(said) == reason


@pytest.mark.parametrize("reason", ["error", "abort", "length", "max_tokens", "model_length"])
@pytest.mark.parametrize("text", ["I think [[A]] but", "tag-1 [[A]]"])
def test_a_judgment_that_was_not_finished_is_no_verdict(text: str, reason: str) -> None:
    assert parse(text, "letter", reason, "tag-1").status == "truncated"


def test_scores_that_came_first_stand_if_the_reply_was_cut_and_not_if_it_broke() -> None:
    assert parse("10 9\nThe first", "scores", "MAX_TOKENS").scores == (10, 9)
    assert parse("10 9\nThe first", "scores", "error").status == "truncated"


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"message": {"content": None, "tool_calls": [{}]}, "finish_reason": "stop"}, "tool_calls"),
        ({"message": {"content": "Hi", "tool_calls": [{}]}, "finish_reason": "stop"}, "stop"),
        ({"message": {"content": "Hi"}}, "stop"),
    ],
)
def test_a_tools_call_in_place_of_a_text_is_no_stop(choice, reason: str) -> None:
    assert styles.reply("openai", {"choices": [choice]}).finish_reason == reason


@pytest.mark.parametrize(
    ("text", "parted"),
    [
        ("hm\n</think>\n\nHi.", ("hm", "Hi.")),
        ("hm </think>\nHi.", ("", "hm </think>\nHi.")),
        ("hm. </think>\nHi.", ("hm.", "Hi.")),
        ("hm.</think> Hi.", ("hm.", "Hi.")),
        ("hm</think>**Hi.**", ("hm", "**Hi.**")),
        ("hm\n</reasoning>\nHi.", ("hm", "Hi.")),
        (MENTION, ("", MENTION)),
        (f"hm\n</think>\n{MENTION}", ("hm", MENTION)),
        ("The tag </think> ends it.", ("", "The tag </think> ends it.")),
        ('It ends with "</think>".', ("", 'It ends with "</think>".')),
        ("So:\n```\nhm\n</think>\n```\nDone.", ("", "So:\n```\nhm\n</think>\n```\nDone.")),
        ("```\nx\n```\n</think>\n```\ny\n```", ("```\nx\n```", "```\ny\n```")),
    ],
)
def test_a_closing_tag_that_is_only_written_about_parts_nothing(
    text: str, parted: tuple[str, str]
) -> None:
    assert part_thoughts(text) == parted


def test_a_judge_may_write_about_the_tags_of_thoughts() -> None:
    assert parse("[[A]] Its `<think>` and `</think>` are left open.", "letter").verdict == "A"
    assert parse("Is it [[A]]? No.\n</think>\n[[B]]", "letter").verdict == "B"


HARMONY = (
    "<|channel|>analysis<|message|>hm [[A]]<|end|><|start|>assistant"
    "<|channel|>final<|message|>Hi.<|return|>"
)


@pytest.mark.parametrize(
    ("text", "parted"),
    [
        ("[THINK]hm[/THINK]Hi.", ("hm", "Hi.")),
        ("[THINK]hm", ("hm", "")),
        ("Write [THINK]x[/THINK] so.", ("", "Write [THINK]x[/THINK] so.")),
        ("\u25c1think\u25b7hm\u25c1/think\u25b7Hi.", ("hm", "Hi.")),
        ("<seed:think>hm</seed:think>\nHi.", ("hm", "Hi.")),
        (
            "<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>Hi.<|END_RESPONSE|>",
            ("hm", "Hi."),
        ),
        (
            "<|begin_of_thought|>hm<|end_of_thought|>\n\n<|begin_of_solution|>Hi.",
            ("hm", "Hi."),
        ),
        (HARMONY, ("hm [[A]]", "Hi.")),
        (HARMONY.partition("<|end|>")[0], ("hm [[A]]", "")),
        ("<|channel|>final<|message|>Hi.<|return|>", ("", "Hi.")),
        ("<|channel|>commentary<|message|>Hi.<|end|>", ("", "Hi.")),
        (HARMONY.replace("final", "commentary"), ("hm [[A]]", "Hi.")),
        ("analysisWe say hi.\nYes.assistantfinalHi.", ("We say hi.\nYes.", "Hi.")),
        ("analysisResult = 1", ("", "analysisResult = 1")),
    ],
)
def test_every_familys_thoughts_are_parted_from_the_answer(
    text: str, parted: tuple[str, str]
) -> None:
    assert part_thoughts(text) == parted


def test_a_judges_thoughts_of_any_family_are_no_verdict() -> None:
    assert parse(HARMONY, "letter").status == "unparsed"
    assert parse(HARMONY.replace("Hi.", "[[B]]"), "letter").verdict == "B"
    assert parse("[THINK]It is [[A]]", "letter", "length").status == "truncated"
    assert parse("[THINK]Is it\n7 9\n[/THINK]8 7\nWhy.", "scores").scores == (8, 7)
