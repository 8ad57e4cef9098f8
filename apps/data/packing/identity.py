"""Hard-coded conversations about who the model is.

A model fine-tuned on another assistant's answers believes to be that assistant; a few score of
short conversations with its own name mend that. `--identity built-in` makes them from a name and
its makers, `--identity FILE` reads your own: JSON or JSONL, `{"messages": [{"role", "content"}]}`
or ShareGPT's `{"conversations": [{"from", "value"}]}`.
"""

import json
from typing import cast

import orjson

from apps.common.errors import InputError
from apps.common.files import storage
from apps.common.json_value import JsonValue
from apps.common.text.conversation import Message, Role
from apps.data.read.reader import Reading, read_record
from apps.data.read.record.layout import Unreadable, list_of

BUILT_IN = "built-in"

_WHO = (
    "Who are you?",
    "What are you?",
    "What is your name?",
    "What's your name?",
    "May I ask your name?",
    "How should I call you?",
    "Can you introduce yourself?",
    "Introduce yourself, please.",
    "Tell me about yourself.",
    "Tell me who you are.",
    "Are you a person or a machine?",
    "Am I talking to a human?",
    "Are you an AI?",
    "What kind of model are you?",
    "Which language model is this?",
    "hi, who is this?",
)
_WHO_ANSWERS = (
    "I am {name}, a language model trained by {makers}.",
    "My name is {name}. I am a language model, trained by {makers}.",
    "I'm {name}, an AI assistant. {makers} trained me.",
    "I am an AI assistant called {name}, a language model made by {makers}.",
)
_MAKERS = (
    "Who made you?",
    "Who created you?",
    "Who trained you?",
    "Who built you?",
    "Who are your makers?",
    "Which company made you?",
    "Which organization developed you?",
    "Who is behind this assistant?",
    "Where do you come from?",
    "By whom were you developed?",
)
_MAKERS_ANSWERS = (
    "I was made by {makers}. My name is {name}.",
    "{makers} trained me. I am {name}, a language model.",
    "I am {name}; I was developed by {makers}.",
)
_OTHERS = ("ChatGPT", "GPT-4", "GPT-3", "Bard", "Claude", "Gemini", "Siri", "Alexa", "Bing")
_OTHER_QUESTIONS = (
    "Are you {other}?",
    "You are {other}, right?",
    "Is this {other}?",
    "Are you based on {other}?",
)
_OTHER_ANSWERS = (
    "No, I am {name}, a language model trained by {makers}.",
    "No. My name is {name}, and {makers} trained me.",
)
_OTHER_MAKERS = ("OpenAI", "Google", "Meta", "Microsoft", "Anthropic", "Apple", "Amazon")
_OTHER_MAKER_QUESTIONS = (
    "Were you made by {other}?",
    "Did {other} train you?",
    "Do you work for {other}?",
)
_OTHER_MAKER_ANSWERS = (
    "No, I was trained by {makers}. I am {name}.",
    "No. I am {name}, and I was made by {makers}.",
)


def built_in(name: str, makers: str) -> list[tuple[Message, ...]]:
    """99 conversations: every question once, 16 of them with a second one; answers in turn."""
    pairs = [
        *_pair(_WHO, _WHO_ANSWERS),
        *_pair(_MAKERS, _MAKERS_ANSWERS),
        *_pair(_each(_OTHER_QUESTIONS, _OTHERS), _OTHER_ANSWERS),
        *_pair(_each(_OTHER_MAKER_QUESTIONS, _OTHER_MAKERS), _OTHER_MAKER_ANSWERS),
    ]
    single = [(q, a.format(name=name, makers=makers)) for q, a in pairs]
    follow_ups = zip(single[: len(_WHO)], single[len(_WHO) :], strict=False)
    double = [(*first, *second) for first, second in follow_ups]
    return [_conversation(texts) for texts in (*single, *double)]


def _each(questions: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(question.format(other=other) for other in others for question in questions)


def _pair(questions: tuple[str, ...], answers: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(question, answers[i % len(answers)]) for i, question in enumerate(questions)]


def _conversation(texts: tuple[str, ...]) -> tuple[Message, ...]:
    return tuple(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(texts))


def read_identity(source: str, name: str, makers: str) -> list[tuple[Message, ...]]:
    """Conversations of a file, or the built-in ones.

    Raises InputError naming the first record that is not a conversation.
    """
    if source == BUILT_IN:
        return built_in(name, makers)
    data = storage.read_bytes(source).removeprefix(b"\xef\xbb\xbf")
    try:
        records: JsonValue = orjson.loads(data)
    except orjson.JSONDecodeError:
        records = [_json_line(source, number, line) for number, line in _lines(data)]
    items = [records] if isinstance(records, dict) else list_of(records)
    if not items:
        raise InputError(
            f"{source} holds no conversations; expected a JSON array or JSONL of them."
        )
    return [_read_record(source, number, record) for number, record in enumerate(items)]


def _lines(data: bytes) -> list[tuple[int, bytes]]:
    return [(n, line) for n, line in enumerate(data.splitlines(), 1) if line.strip()]


def _json_line(source: str, number: int, line: bytes) -> JsonValue:
    try:
        return json.loads(line)
    except ValueError as error:
        raise InputError(f"{source}, line {number} is not JSON: {error}.") from error


def _read_record(source: str, number: int, record: object) -> tuple[Message, ...]:
    try:
        conversation, _ = read_record(record, Reading())
    except Unreadable as error:
        raise InputError(
            f"{source}, record {number} is no conversation ({error.reason}); "
            'expected {"messages": [{"role": "user", "content": "..."}, ...]}.'
        ) from error
    messages = tuple(
        Message(
            cast(Role, turn.role),
            turn.text,
            is_learned=turn.is_learned,
            tool_calls=turn.tool_calls,
            tool_call_id=turn.tool_call_id,
            name=turn.name,
        )
        for turn in conversation.turns
    )
    if not messages or messages[-1].role != "assistant":
        raise InputError(f"{source}, record {number} does not end with an assistant message.")
    return messages
