"""What providers' models say about themselves, instead of answering, or when they break.

Error texts and lectures are known in English. Refusals, identity and the end of knowledge are known
in ten more languages (`languages/`, a file each); `--rules.phrases` adds expressions or files.
"""

# re2 is partly unknown:
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false

import functools
from importlib.resources import files
from typing import Any, Literal, get_args

import re2
import yaml

Kind = Literal["refusal", "identity", "cutoff"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def _any_of(*alternatives: str, prefix: str = "", suffix: str = "") -> str:
    """With straight apostrophes or the curly ones that newer models write."""
    joined = "|".join(alternatives).replace("'", "['\u2019]")
    return f"(?i){prefix}(?:{joined}){suffix}"


REFUSAL_CHARS = 300
"""Of an answer: what comes later is part of the answer."""
_START = r"^[\s\pP\pS]*"
"""Of an answer: a refusal says so at once."""
_AN_AI = r"an? (?:ai|artificial intelligence|large language|language)"
_CANNOT = r"i (?:can'?t|cannot|am unable to|am not able to|won'?t(?: be able to)?|will not)"
_TO_SERVE = (
    r"(?:assist|help(?: (?:you|with|people|anyone|that|to|in)\b|\s*(?:[.,!;]|$))|provide|fulfil"
    r"|comply|create|generate|engage|support|access|offer"
    r"|write(?:\s*[^\s\w]|\s*$|\s+(?:[^\so]|o[^f]|of[^f]))"  # and not "write off"
    r"|do (?:that|this)(?:\s*[^\s\w]|\s*$|\s+(?:as|because|for|in|kind|since|sort|task|to)\b)"
    r"|answer (?:that|this|your)\b|discuss|participate)"
)
_BAD = r"(?:unethical|illegal|harmful|offensive|inappropriate|discriminat|stereotyp)"
_MAKERS = r"(?:trained|developed|created|made|built)"

BANNER = re2.compile(
    _any_of(
        r"too many requests in 1 hour\. try again later",
        r"an error occurred\. (?:if this issue persists|either the engine)",
        r"something went wrong\. if this issue persists",
        r"the server had an error while processing your request",
        r"the server is currently overloaded",
        r"our servers are experiencing high",
        r"network error\W*(?:$|due to high traffic|there was an error|please )",
        r"error in (?:message|body) stream\W*$",
        r"internal server error\W*$",
        r"hmm\.{2,3}something seems to have gone wrong",
        r"only one message at a time\. please allow any other responses",
        r"conversation (?:not found|key not found)\W*$",
        r"unable to load (?:conversation|history)",
        r"your session has expired\W*(?:$|please )",
        r"this model'?s maximum context length is",
        r"(?:you'?ve|you have) reached (?:the|your|our) (?:current )?(?:usage|limit)",
        prefix=r"^[\s!()\[\]]*",
    )
)
"""At the start of an answer that is nothing else."""

_DOES_NOT = (
    r"(?:as an?|it is not|i'?m|i (?:am|can|cannot|do|don|won|must|would|need|only|just|still|lack"
    r"|currently|have (?:no|to decline)|will not|could(?:n'?t| not)))\b"
)
"""What follows in a refusal; after a mistake it is "I made", "I misunderstood"..."""

_REFUSAL = _any_of(
    rf"(?:i'?m|i am) (?:very |really |truly )?sorry,? (?:but )?{_DOES_NOT}",
    rf"i apologi[sz]e,? (?:but )?{_DOES_NOT}",
    r"sorry,? (?:but )?i (?:can'?t|cannot|am not|won'?t)\b",
    rf"(?:unfortunately,? )?(?:as {_AN_AI}[^.]{{0,60}},? )?{_CANNOT} {_TO_SERVE}",
    rf"(?:unfortunately,? )?(?:i'?m|i am) (?:unable|not able) to {_TO_SERVE}",
    r"i (?:must|have to|need to) (?:respectfully |politely )?decline\b",
    prefix=_START,
)
_AFRAID = _any_of(
    rf"(?:i'?m|i am) afraid (?:that )?(?:{_CANNOT}|i'?m (?:unable|not able))",
    prefix=r"^[\s*_#>]*",
)
"""Not in quotes: films and books say it."""

MORALIZING = re2.compile(
    _any_of(
        r"(?:it is|it's) (?:important|crucial|essential) to (?:note|remember) that "
        rf"[^.]{{0,80}}{_BAD}",
        rf"as {_AN_AI}[^.]{{0,40}}, i (?:do not|don'?t) (?:condone|endorse|promote|have personal)",
        r"i (?:cannot|can'?t|do not|don'?t) (?:condone|endorse|promote)",
        r"(?:goes|go) against (?:ethical|my programming|moral)",
        r"it is (?:not (?:appropriate|ethical|acceptable)|unethical|inappropriate) to",
        r"promot(?:e|ing) (?:harmful|hateful|violence)",
        prefix=r"\b",
    )
)

_IDENTITY = _any_of(
    rf"as an? (?:ai )?(?:language model|chatbot|assistant) {_MAKERS} by",
    rf"i (?:was|am|have been) {_MAKERS} by",
    rf"(?:i'?m|i am|as) {_AN_AI} (?:language )?(?:model|assistant|chatbot)",
    r"openai'?s (?:language )?models?",
    prefix=r"\b",
    suffix=r"\b",
)
_NAMED = _any_of(
    r"(?:i am|i'm|my name is) (?:called )?(?:chatgpt|gpt-?[345]o?|bing|bard|claude|gemini|copilot"
    r"|qwen|deepseek|llama|mistral|grok)(?:[\d.\-][\w.\-]*)?"
    r"(?:[.,!?;:]|\s*$|\s*\(|\s(?:and|from|by|developed|created|trained|made|built|an?|the|here)\b)",
    prefix=r"\b",
)
"""A model's name, its version, and what goes on after it and not after that of Claude Monet."""

_CUTOFF = _any_of(
    r"knowledge cut-?off",
    r"(?:as of|up to|until|since) my (?:last |most recent )?(?:knowledge|training|updated?)",
    r"(?:as of|up to|until|since) september,? 2021",
    r"my (?:training data|knowledge) (?:only )?(?:goes|extends|ends|was cut|is limited)",
    r"i (?:do not|don'?t) have (?:access to )?(?:real-?time|up-?to-?date) (?:information|data)",
    r"cut-?off (?:date )?(?:of|in|is) (?:september )?20[0-9]{2}",
    prefix=r"\b",
    suffix=r"\b",
)


_ENGLISH: dict[Kind, str] = {
    "refusal": f"{_REFUSAL}|{_AFRAID}",
    "identity": f"{_IDENTITY}|{_NAMED}",
    "cutoff": _CUTOFF,
}


@functools.cache
def of(kind: Kind, more: tuple[str, ...] = ()) -> Any:
    """The expression of a kind in every language; `more` has own ones, each `kind=expression`."""
    own = [text.partition("=")[2] for text in more if text.partition("=")[0] == kind]
    others = [*(one for phrases in _languages().values() for one in phrases[kind]), *own]
    start = _START if kind == "refusal" else ""
    return re2.compile(f"{_ENGLISH[kind]}|{_any_of(*others, prefix=start)}", _options())


def refusal_in(answer: str, more: tuple[str, ...] = ()) -> str:
    """What an answer refuses with at its beginning; "" where it does not."""
    return _refusal_in(answer[:REFUSAL_CHARS], more)


@functools.lru_cache(maxsize=256)  # of the conversation at hand: a score and a rule ask for it
def _refusal_in(opening: str, more: tuple[str, ...]) -> str:
    match = of("refusal", more).search(opening)
    return match.group(0) if match is not None else ""


@functools.cache
def _languages() -> dict[str, dict[Kind, list[str]]]:
    """By ISO 639-1 code."""
    folder = files("apps.data.rules") / "languages"
    there = sorted(folder.iterdir(), key=lambda file: file.name)
    return {file.name.removesuffix(".yaml"): yaml.safe_load(file.read_text()) for file in there}


def _options() -> Any:
    options = re2.Options()
    options.max_mem = 256 << 20
    return options
