"""The settings of the cleaner's rules, and the profiles that fill them in.

A rule is declared once here, by its field (its setting, the value that switches it off, its line in
`--help`), and once by the function of that name in `rules.py`. The order of the fields is the order
in which the rules are applied and in which a report shows them.
"""

# re2 is partly unknown:
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Literal, cast

import re2

from apps.common.errors import ConfigError
from apps.common.files import config as configs
from apps.data.rules import phrases

_YAML = (".yaml", ".yml")
Action = Literal["keep", "drop", "trim"]
"""What a content rule does with a conversation: nothing, drop it, or take the round out of it."""

FLAGS = ("toxic", "redacted", "moderation", "no_consent", "cut_off", "names_a_model")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """The rules of `clean`. Every field that is None takes the profile's value.

    The metadata's `off` is the value with which a rule does nothing.
    """

    scores: Literal["all", "used"] | None = field(default=None, metadata={"off": "used"})
    """score language, repetition, severity and quality of everything, or only what a rule reads"""
    plugins: Literal["keep", "drop"] | None = field(default=None, metadata={"off": "keep"})
    """conversations with ChatGPT plugins"""
    flagged: tuple[str, ...] | None = field(default=None, metadata={"off": ()})
    """flags of the source that drop a conversation: toxic, redacted, moderation; and of Cria's page
    no_consent, cut_off (an answer without its end), names_a_model"""
    continuation: Literal["keep", "drop"] | None = field(default=None, metadata={"off": "keep"})
    """pieces of a split dump that begin with an answer, and whose predecessor is lost"""
    escapes: Literal["keep", "undo"] | None = field(default=None, metadata={"off": "keep"})
    """take off the backslashes that a converter put before marks which need none"""
    empty: Literal["keep", "cut"] | None = field(default=None, metadata={"off": "keep"})
    """cut a conversation at its first empty or unprintable turn; leave out such a system message"""
    ends: Literal["keep", "trim"] | None = field(default=None, metadata={"off": "keep"})
    """take off turns before the first user turn, and user turns after the last answer"""
    alternation: Literal["keep", "merge", "drop"] | None = field(
        default=None, metadata={"off": "keep"}
    )
    """two messages of one role in a row: leave, join them, or drop the conversation"""
    min_chars: int | None = field(default=None, metadata={"off": 0})
    """characters a conversation must have; 0: any"""
    banner: Action | None = field(default=None, metadata={"off": "keep"})
    """an answer that is the provider's error text ("Too many requests in 1 hour...")"""
    blocked_words: tuple[str, ...] | None = field(default=None, metadata={"off": ()})
    """words that drop a conversation when an answer's prose has them; whole words, any case"""
    refusal: Action | None = field(default=None, metadata={"off": "keep"})
    """an answer that opens by refusing ("I'm sorry, but I cannot...")"""
    moralizing: Action | None = field(default=None, metadata={"off": "keep"})
    """an answer that lectures ("it is important to note that it is unethical to...")"""
    identity: Action | None = field(default=None, metadata={"off": "keep"})
    """an answer in which the model says who made it"""
    cutoff: Action | None = field(default=None, metadata={"off": "keep"})
    """an answer in which the model says when its knowledge ends"""
    phrases: tuple[str, ...] | None = field(default=None, metadata={"off": ()})
    """more phrases of refusal, identity and cutoff: each kind=expression (RE2, any case), or a YAML
    file of lists by kind, as apps/data/rules/languages has one for each language"""
    restarted_list: Literal["keep", "drop", "trim", "repair"] | None = field(
        default=None, metadata={"off": "keep"}
    )
    """an answer with a numbered list that has 1 twice in a row; repair: number it on"""
    digit_run: Action | None = field(default=None, metadata={"off": "keep"})
    """a digit nine times in a row"""
    language_keep: tuple[str, ...] | None = field(default=None, metadata={"off": ()})
    """ISO 639-1 codes; conversations in another known language are dropped; none: all stay"""
    language_skip: tuple[str, ...] | None = field(default=None, metadata={"off": ()})
    """ISO 639-1 codes whose conversations are dropped"""
    max_severity: int | None = field(default=None, metadata={"off": 3})
    """highest severity (0-3) of the lexicon of inappropriate content that stays; 3: any"""
    max_repetition: float | None = field(default=None, metadata={"off": 1.0})
    """highest share (0-1) of an answer that may repeat, by its lines or by compression; 1: any"""
    min_quality: float | None = field(default=None, metadata={"off": 0.0})
    """lowest quality score (0-1) that stays, of readability, length, language, repetition, refusals
    and balance of the turns; 0: any"""
    personal_data: Literal["keep", "mask"] | None = field(default=None, metadata={"off": "keep"})
    """replace e-mail addresses, phone and account numbers, public IPs and secrets by <EMAIL> ..."""
    duplicate_id: Literal["keep", "drop"] | None = field(default=None, metadata={"off": "keep"})
    """conversations with the id of another in their file, when all they say stands in it"""
    duplicate: Literal["keep", "drop"] | None = field(default=None, metadata={"off": "keep"})
    """conversations with the text of another or of its beginning; blanks and case of prose apart"""
    duplicate_opening: Literal["keep", "drop"] | None = field(
        default=None, metadata={"off": "keep"}
    )
    """conversations whose first round is another's and has 30 words or more: the longest stays"""
    near_duplicate: float | None = field(default=None, metadata={"off": 0.0})
    """MinHash similarity (0-1) of 5-word shingles from which a conversation is dropped; 0: off. Of
    scripts without blanks, n-grams of characters are the words"""

    def __post_init__(self) -> None:
        for name in ("max_repetition", "near_duplicate", "min_quality"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"rules.{name} is {value}; expected a share from 0 to 1.")
        if self.max_severity is not None and not 0 <= self.max_severity <= 3:
            raise ConfigError(f"rules.max_severity is {self.max_severity}; expected 0 to 3.")
        for flag in self.flagged or ():
            if flag not in FLAGS:
                raise ConfigError(f"rules.flagged has {flag!r}; expected {', '.join(FLAGS)}.")
        for name in ("language_keep", "language_skip"):
            for code in getattr(self, name) or ():
                if re.fullmatch("[a-z]{2,3}", code) is None:
                    raise ConfigError(
                        f"rules.{name} has {code!r}; expected ISO 639-1 codes such as en or ko."
                    )

        for phrase in self.phrases or ():
            _check_phrase(phrase)

    def over(self, base: "Rules") -> "Rules":
        """These rules where they are set, else those of `base`."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return dataclasses.replace(base, **{k: v for k, v in own.items() if v is not None})


def _check_phrase(phrase: str) -> None:
    kind, is_given, expression = phrase.partition("=")
    if phrase.endswith(_YAML):
        return
    if not is_given or kind not in phrases.KINDS:
        raise ConfigError(
            f"rules.phrases has {phrase!r}; expected a YAML file, or kind=expression with one of "
            f"{', '.join(phrases.KINDS)} as the kind."
        )
    try:
        re2.compile(expression)
    except re2.error as error:
        raise ConfigError(
            f"rules.phrases has {expression!r}, which is no expression of RE2 ({error})."
        ) from error


def with_files_read(rules: Rules) -> Rules:
    """Phrases of files in place of the files' names. Raises ConfigError."""
    read: list[str] = []
    for phrase in rules.phrases or ():
        if phrase.endswith(_YAML) and "=" not in phrase:
            for kind, those in configs.load_yaml(phrase).items():
                if not isinstance(those, list):
                    raise ConfigError(
                        f"{phrase} has {kind}: {those!r}; expected a list of expressions."
                    )
                read += [f"{kind}={one}" for one in cast(list[object], those)]
        else:
            read.append(phrase)
    return dataclasses.replace(rules, phrases=tuple(read))


def none() -> Rules:
    """Reading only: HTML becomes Markdown, what cannot be read is quarantined, the rest stays."""
    return Rules(**{one.name: one.metadata["off"] for one in dataclasses.fields(Rules)})


def vicuna() -> Rules:
    """What the published recipe does (FastChat's prepare_all), with its bugs mended.

    The differences:
    - HTML is decided per message. The recipe parsed what people typed as HTML too and lost text at
      every `<`; its Markdown lost indentation, blank lines and code languages and gained escapes.
    - All turns before the first user turn are taken off, not one only; `user`, `chatgpt`, `bing`
      and other role names are known instead of dropped as a wrong format.
    - "openai" and "chatgpt" drop a conversation when an answer says them in prose, as whole words.
      The recipe also dropped questions about them, code that imports openai, and links.
    - An empty list of plugins is none; the recipe dropped conversations that had one.
    - An error banner ends a conversation's life only when the answer is the banner.
    - A turn is unprintable when nothing but control and zero-width characters is in it; the recipe
      looked at the first character and silently lost the rest of the conversation.
    - A numbered list is broken when one list numbers its items 1, 1. The recipe dropped two lists
      that each start at 1 unless a 2 stood anywhere between them.
    - Of conversations with the same id the longest stays, not the first, and another one goes only
      when all it says stands there; ids are compared within a file, and never with texts.
    - Of conversations with the same first round the longest stays, where that round has 30 words or
      more; people who never met share a greeting and its answer.
    - Language is detected with code taken out.
    - The backslashes of published dumps before every `_` and `*` are taken off again.
    - New: repeated and continued conversations, and severe inappropriate content.
    """
    return dataclasses.replace(
        none(),
        scores="all",
        plugins="drop",
        escapes="undo",
        alternation="drop",
        ends="trim",
        empty="cut",
        min_chars=16,
        banner="drop",
        blocked_words=("openai", "chatgpt"),
        restarted_list="drop",
        language_skip=("ko",),
        max_severity=2,
        duplicate_id="drop",
        duplicate="drop",
        duplicate_opening="drop",
    )


def strict() -> Rules:
    """Every rule on: refusals, lectures and identity go too, personal data is masked, and
    near-duplicates are dropped. It changes what the model will say; choose it knowingly."""
    return dataclasses.replace(
        vicuna(),
        refusal="drop",
        moralizing="drop",
        identity="drop",
        cutoff="drop",
        flagged=FLAGS,
        continuation="drop",
        restarted_list="repair",
        digit_run="drop",
        max_repetition=0.9,
        max_severity=1,
        personal_data="mask",
        near_duplicate=0.8,
    )


PROFILES = {"vicuna": vicuna, "strict": strict, "none": none}
