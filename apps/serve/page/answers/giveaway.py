"""Whether an answer of a blind battle tells which model gave it."""

import re

_FAMILIES = (
    "alpaca|anthropic|baichuan|bard|bloom|chatglm|chatgpt|claude|cohere|command r|copilot|dbrx|"
    "deepmind|deepseek|dolly|ernie|falcon|gemini|gemma|glm|google|gpt|grok|guanaco|hermes|internlm|"
    "koala|llama|lmsys|meta ai|microsoft|mistral|mixtral|mosaic|moonshot|nemotron|openai|"
    "openassistant|orca|palm|phi|qwen|sharegpt|stablelm|starling|tulu|vicuna|wizardlm|yi|zephyr"
)
_ABOUT_ITSELF = re.compile(
    r"(?i)\b(?:i am|i['\u2019]m|my name is|call me|as an? |known as|version of|trained by|made by|"
    r"developed by|created by|built by)\b[^.\n]{0,60}?\b(?:" + _FAMILIES + r")\b"
)
_PART = re.compile(r"[A-Za-z]{4,}")
# fmt: off
_COMMON = {
    "base", "beta", "chat", "code", "demo", "fast", "free", "hint", "instruct", "large",
    "latest", "long", "lora", "main", "mini", "model", "models", "plus", "preview", "small",
    "test", "tiny", "tuned", "turbo", "ultra", "vision",
}
# fmt: on


def gives_away(model: str, answer: str) -> bool:
    """True for "I am Vicuna", and where a telling part of the model's own name occurs."""
    parts = {part.lower() for part in _PART.findall(model)} - _COMMON
    own = re.compile(r"(?i)\b(?:" + "|".join(map(re.escape, sorted(parts))) + r")\b")
    return bool(_ABOUT_ITSELF.search(answer) or (parts and own.search(answer)))
