"""What came back from an endpoint, whatever its API."""

import re
from dataclasses import dataclass

# Reasoning models that no server has parsed write their thoughts into the text.
THOUGHT_TAGS = "think|thinking|thought|reasoning"
OPENING_TAG = re.compile(rf"<(?:{THOUGHT_TAGS})>", re.IGNORECASE)
_CLOSING = re.compile(rf"</(?:{THOUGHT_TAGS})>", re.IGNORECASE)
_TAGGED = re.compile(rf"\A\s*<({THOUGHT_TAGS})>(.*?)</\1>\s*", re.IGNORECASE | re.DOTALL)
_OPEN = re.compile(rf"\A\s*<(?:{THOUGHT_TAGS})>(.*)\Z", re.IGNORECASE | re.DOTALL)

# What models leave in the text where no server has parsed it: (opening, closing, what stands around
# the answer behind it), of Mistral's, Kimi's, Seed's, Sky-T1's, Cohere's and gpt-oss's, the last
# with its special tokens and without them.
_FAMILIES = [
    (r"\[THINK\]", r"\[/THINK\]", ""),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7", ""),
    (r"<seed:think>", r"</seed:think>", ""),
    (
        r"<\|begin_of_thought\|>",
        r"<\|end_of_thought\|>(?:\s*<\|begin_of_solution\|>)?",
        r"<\|end_of_solution\|>",
    ),
    (
        r"<\|START_THINKING\|>",
        r"<\|END_THINKING\|>(?:\s*<\|START_RESPONSE\|>)?",
        r"<\|END_RESPONSE\|>",
    ),
    (
        r"(?:<\|start\|>assistant)?(?=<\|channel\|>)(?:<\|channel\|>analysis<\|message\|>)?",
        r"(?:<\|end\|>)?(?:<\|start\|>assistant)?<\|channel\|>(?:final|"
        r"commentary(?!.*<\|channel\|>))[^\n]*?<\|message\|>",  # commentary is told, not thought
        r"<\|(?:return|end)\|>",
    ),
    (r"analysis(?=[A-Z][^\n]*?\b)(?=.*?assistantfinal)", r"assistantfinal", ""),
]
_OF_FAMILY = [
    re.compile(rf"\A\s*{opening}(.*?)(?:{closing}\s*(.*?)(?:{end})?\s*\Z|\Z)", re.DOTALL)
    for opening, closing, end in _FAMILIES
]


# Other endpoints' words for OpenAI's: Anthropic's and Bedrock's, Gemini's, Mistral's, Cohere's,
# TGI's, vLLM's, Zhipu's, DeepSeek's, OpenRouter's.
_SAID = {
    "stop": "stop end_turn stop_sequence eos eos_token endoftext complete",
    "length": "length max_tokens model_length max_output_tokens max_length error_limit "
    "model_context_window_exceeded",
    "content_filter": "content_filter content_filtered safety recitation blocklist spii sensitive "
    "prohibited_content refusal guardrail_intervened error_toxic",
    "error": "error abort aborted cancelled canceled failed timeout internal_error engine_error "
    "network_error insufficient_system_resource",
}
_REASONS = {word: reason for reason, words in _SAID.items() for word in words.split()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    text: str
    finish_reason: str
    """as the endpoint says it; `plain_reason` has one word for what means the same"""
    prompt_tokens: int | None = None
    """None where the endpoint did not say, or said what no count can be"""
    completion_tokens: int | None = None
    endpoint_model: str = ""
    fingerprint: str | None = None
    thoughts: str = ""
    """what a reasoning model's API gave beside the text"""
    was_filtered: bool = False
    """the endpoint kept the prompt from the model; the text is the endpoint's"""

    def used_tokens(self, otherwise: int) -> int:
        """Tokens in all, or `otherwise` where the endpoint did not count them."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return otherwise
        return self.prompt_tokens + self.completion_tokens


def plain_reason(said: str) -> str:
    """stop, length, content_filter, or error (broken off midway); other words as they are.

    MAX_TOKENS -> length    abort -> error    tool_calls -> tool_calls
    content_filter: PROHIBITED_CONTENT -> content_filter (Gemini's)
    """
    return _REASONS.get(said.lower().partition(":")[0], said)


def with_plain_tags(text: str) -> str:
    """A text whose thoughts come first, in `<think>` tags whatever its family's are.

    "[THINK]hm[/THINK]Hi."   "<think>hm</think>Hi."
    "[THINK]hm"              "<think>hm"
    "Use [THINK]."           as it is
    """
    for family in _OF_FAMILY:
        if match := family.match(text):
            thought, said = match.groups()
            return f"<think>{thought}" + ("" if said is None else f"</think>{said}")
    return text


def part_thoughts(text: str) -> tuple[str, str]:
    """(thoughts, text): the leading `<think>` block of an answer, apart from what it says.

    "<think>hm</think>Hi."   ("hm", "Hi.")
    "hm</think>Hi."          ("hm", "Hi.")
    "<think>hm"              ("hm", "")        cut before it answered
    "Use <think> tags."      ("", "Use <think> tags.")
    "Write `</think>`, then" ("", "Write `</think>`, then")
    """
    text = with_plain_tags(text)
    if match := _TAGGED.match(text):
        return match[2].strip(), text[match.end() :]
    if (ends := thought_ends(text)) and not OPENING_TAG.search(text, 0, ends[0].start()):
        return text[: ends[0].start()].strip(), text[ends[0].end() :].lstrip()
    if match := _OPEN.match(text):
        return match[1].strip(), ""
    return "", text


def thought_ends(text: str) -> list[re.Match[str]]:
    """Closing tags that end a thought, and are not only written about.

    Some servers put the opening tag into the prompt, so that only the closing one comes back. It
    stands alone on its line, at a line's end, or glued to what stands before and behind it.
    """
    return [match for match in _CLOSING.finditer(text) if _ends_thought(match, text)]


def _ends_thought(match: re.Match[str], text: str) -> bool:
    before = text[: match.start()].rpartition("\n")[2]
    behind = text[match.end() :].partition("\n")[0]
    is_in_code = text.count("```", 0, match.start()) % 2 and "```" in text[match.end() :]
    is_in_quotes = before.count("`") % 2 and "`" in behind
    if is_in_code or is_in_quotes or before[-1:] in tuple("\"'`\u201c\u2018<"):
        return False
    is_sentence_done = before.rstrip()[-1:] in ("", *".!?:)]}*")
    if not behind.strip():
        return is_sentence_done or not before[-1:].isspace()
    if before.strip() and before[-1:] in tuple(".!?"):
        return True
    return not before[-1:].isspace() and bool(re.match(r"[\w*#\[(\\|$-]", behind))
