"""What providers' models say about themselves, instead of answering, or when they break."""

from typing import Any

import re2


def _any_of(*alternatives: str, prefix: str = "", suffix: str = "") -> Any:
    """With straight apostrophes or the curly ones that newer models write."""
    joined = "|".join(alternatives).replace("'", "['\u2019]")
    return re2.compile(f"(?i){prefix}(?:{joined}){suffix}")


_AN_AI = r"an? (?:ai|artificial intelligence|large language|language)"
_CANNOT = r"i (?:can'?t|cannot|am unable to|am not able to|won'?t be able to|will not)"
_TO_SERVE = (
    r"(?:assist|help|provide|fulfil|comply|create|generate|engage|write|support|access|offer)"
)
_BAD = r"(?:unethical|illegal|harmful|offensive|inappropriate|discriminat|stereotyp)"
_MAKERS = r"(?:trained|developed|created|made|built)"

BANNER = _any_of(
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
"""At the start of an answer that is nothing else."""

_DOES_NOT = (
    r"(?:as an?|it is not|i'?m|i (?:am|can|cannot|do|don|won|must|would|need|only|just|still|lack"
    r"|currently|have (?:no|to decline)|will not|could(?:n'?t| not)))\b"
)
"""What follows in a refusal; after a mistake it is "I made", "I misunderstood"..."""

REFUSAL = _any_of(
    rf"(?:i'?m|i am) (?:very |really |truly )?sorry,? (?:but )?{_DOES_NOT}",
    rf"i apologi[sz]e,? (?:but )?{_DOES_NOT}",
    r"sorry,? (?:but )?i (?:can'?t|cannot|am not|won'?t)\b",
    rf"(?:unfortunately,? )?(?:as {_AN_AI}[^.]{{0,60}},? )?{_CANNOT} {_TO_SERVE}",
    rf"(?:i'?m|i am) (?:unable|not able) to {_TO_SERVE}",
    prefix=r"^\W*",
)
"""At the start of an answer."""

MORALIZING = _any_of(
    rf"(?:it is|it's) (?:important|crucial|essential) to (?:note|remember) that [^.]{{0,80}}{_BAD}",
    rf"as {_AN_AI}[^.]{{0,40}}, i (?:do not|don'?t) (?:condone|endorse|promote|have personal)",
    r"i (?:cannot|can'?t|do not|don'?t) (?:condone|endorse|promote)",
    r"(?:goes|go) against (?:ethical|my programming|moral)",
    r"it is (?:not (?:appropriate|ethical|acceptable)|unethical|inappropriate) to",
    r"promot(?:e|ing) (?:harmful|hateful|violence)",
    prefix=r"\b",
)

IDENTITY = _any_of(
    rf"as an? (?:ai )?(?:language model|chatbot|assistant) {_MAKERS} by",
    r"(?:i am|i'm|my name is) (?:called )?(?:chatgpt|gpt-?[345](?:\.5)?|bing|bard|claude)",
    rf"i (?:was|am|have been) {_MAKERS} by",
    rf"(?:i'?m|i am|as) {_AN_AI} (?:language )?(?:model|assistant|chatbot)",
    r"openai'?s (?:language )?models?",
    prefix=r"\b",
    suffix=r"\b",
)

CUTOFF = _any_of(
    r"knowledge cut-?off",
    r"(?:as of|up to|until|since) my (?:last |most recent )?(?:knowledge|training|updated?)",
    r"(?:as of|up to|until|since) september,? 2021",
    r"my (?:training data|knowledge) (?:only )?(?:goes|extends|ends|was cut|is limited)",
    r"i (?:do not|don'?t) have (?:access to )?(?:real-?time|up-?to-?date) (?:information|data)",
    r"cut-?off (?:date )?(?:of|in|is) (?:september )?20[0-9]{2}",
    prefix=r"\b",
    suffix=r"\b",
)
