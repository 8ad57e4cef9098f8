"""Thinking is counted wherever an endpoint shows it, and counts that cannot be true are none."""

import pytest

from apps.eval.calls import styles
from apps.eval.calls.usage import Counts, anthropic_counts, openai_counts


def said(total: int | None = None, thinking: object = None) -> dict:
    usage: dict = {"prompt_tokens": 500, "completion_tokens": 20}
    if total is not None:
        usage["total_tokens"] = total
    if thinking is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": thinking}
    return usage


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (said(), (500, 20)),
        (said(520), (500, 20)),
        (said(520, 15), (500, 20)),
        (said(520, 20), (500, 20)),
        (said(2520), (500, 2020)),
        (said(2520, 2000), (500, 2020)),
        (said(2520, 1500), (500, 2020)),
        (said(None, 2000), (500, 2020)),
        (said(None, "2000"), (500, 20)),
        (said(510), (None, None)),
        (said(0), (None, None)),
        (said(520, 2000), (None, None)),
        ({"completion_tokens": 20, "total_tokens": 520}, (None, 20)),
        ({"prompt_tokens": 500, "total_tokens": 520}, (500, None)),
        ({"input_tokens": 500, "output_tokens": 20, "total_tokens": 520}, (500, 20)),
        ({"input_tokens": 500, "output_tokens": 20, "total_tokens": 2520}, (500, 2020)),
        ({"prompt_tokens": 10**12, "completion_tokens": 20}, (None, 20)),
    ],
)
def test_a_completion_is_all_that_the_total_holds_beside_the_prompt(usage, counts: Counts) -> None:
    assert openai_counts(usage) == counts
    for style in ("openai", "azure"):
        payload = {"choices": [{"message": {"content": "Hi."}}], "usage": usage}
        reply = styles.reply(style, payload)
        assert (reply.prompt_tokens, reply.completion_tokens) == counts


def test_a_cached_prompt_is_a_part_of_the_prompt() -> None:
    usage = {"input_tokens": 12, "output_tokens": 3, "cache_read_input_tokens": 400}
    assert anthropic_counts(usage) == (412, 3)
    assert anthropic_counts({**usage, "cache_creation_input_tokens": 50}) == (462, 3)
    assert anthropic_counts({"output_tokens": 3}) == (None, 3)
