"""What a real dump is full of: duplicates, refusals, banners, odd ends, records that are broken."""

import random
from collections.abc import Iterator
from typing import cast

from apps.data.sample.conversations import Chats, letters
from apps.data.sample.page_html import to_chatgpt_html

_REFUSALS = (
    "I'm sorry, but as an AI language model, I cannot help with that.",
    "I apologize, but I cannot assist with that request.",
)
_BANNERS = (
    "Too many requests in 1 hour. Try again later.",
    "!Too many requests in 1 hour. Try again later.",
)


def damaged(
    good: list[dict[str, object]], chats: Chats, rng: random.Random
) -> Iterator[dict[str, object]]:
    """What a real dump is full of; each kind is some 1 % of the good records."""
    share = max(1, len(good) // 100)
    yield from rng.choices(good, k=share)  # the same record twice
    for record in rng.choices(good, k=share):  # the same text under another id
        yield {**record, "id": f"{letters(rng)}_copy"}
    for i in range(share):
        long = chats.conversation(i, num_rounds=rng.randint(14, 20))
        yield {**long, "id": f"{letters(rng)}_long"}
    for kind, texts in (("refusal", _REFUSALS), ("banner", _BANNERS)):
        for i in range(share):
            record = chats.conversation(i)
            answer = to_chatgpt_html(rng.choice(texts)) if kind == "refusal" else rng.choice(texts)
            yield _replace_last(record, answer, kind)
    for i in range(share):
        record = chats.conversation(i)
        yield _with_odd_end(record, i, letters(rng))


def _replace_last(record: dict[str, object], answer: str, kind: str) -> dict[str, object]:
    turns = list(_turn_list(record))
    turns[-1] = {"from": "gpt", "value": answer}
    return {"id": f"{record['id']}_{kind}", "conversations": turns}


def _with_odd_end(record: dict[str, object], i: int, letters: str) -> dict[str, object]:
    turns = list(_turn_list(record))
    if i % 2:
        turns.insert(0, {"from": "gpt", "value": to_chatgpt_html("How can I help?")})
    else:
        turns.append({"from": "human", "value": "Continue, please."})
    return {"id": f"{letters}_odd", "conversations": turns}


def _turn_list(record: dict[str, object]) -> list[dict[str, str]]:
    return cast(list[dict[str, str]], record["conversations"])


def broken_bytes(count: int) -> list[bytes]:
    """Records that cannot be read, in the four ways that dumps break."""
    kinds = (
        b'{"id": "broken-escape", "conversations": [{"from": "human", "value": "a \\x b"}]}',
        b'{"id": "broken-role", "conversations": [{"from": "martian", "value": "hello"}]}',
        b'{"id": "broken-shape", "conversations": "none"}',
        b'{"id": "broken-utf8", "conversations": [{"from": "human", "value": "\xff\xfe"}]}',
    )
    return [kinds[i % len(kinds)] for i in range(count)]
