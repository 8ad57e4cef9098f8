"""Settings of the data commands, and the profiles of the cleaner."""

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from apps.common.errors import ConfigError

MAX_UNIT_BYTES = 64 << 20
"""Raw input in one task's range, but for the last record's length."""

Action = Literal["keep", "drop", "trim"]
"""What a content rule does with a conversation: nothing, drop it, or take the round out of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """The rules of `clean`. Every field that is None takes the profile's value."""

    scores: Literal["all", "used"] | None = None
    """score language, repetition and severity of everything, or only what a rule reads"""
    plugins: Literal["keep", "drop"] | None = None
    """conversations with ChatGPT plugins"""
    alternation: Literal["keep", "merge", "drop"] | None = None
    """two messages of one role in a row: leave, join them, or drop the conversation"""
    ends: Literal["keep", "trim"] | None = None
    """take off turns before the first user turn, and user turns after the last answer"""
    empty: Literal["keep", "cut"] | None = None
    """cut a conversation at its first empty or unprintable turn; leave out such a system message"""
    min_chars: int | None = None
    """characters a conversation must have; 0: any"""
    banner: Action | None = None
    """an answer that is the provider's error text ("Too many requests in 1 hour...")"""
    blocked_words: tuple[str, ...] | None = None
    """words that drop a conversation when an answer's prose has them; whole words, any case"""
    refusal: Action | None = None
    """an answer that opens by refusing ("I'm sorry, but I cannot...")"""
    moralizing: Action | None = None
    """an answer that lectures ("it is important to note that it is unethical to...")"""
    identity: Action | None = None
    """an answer in which the model says who made it"""
    cutoff: Action | None = None
    """an answer in which the model says when its knowledge ends"""
    restarted_list: Action | None = None
    """an answer with a numbered list whose every number is 1"""
    digit_run: Action | None = None
    """a digit nine times in a row"""
    max_repetition: float | None = None
    """highest share (0-1) of an answer that may repeat, by its lines or by compression; 1: any"""
    language_keep: tuple[str, ...] | None = None
    """ISO 639-1 codes; conversations in another known language are dropped; none: all stay"""
    language_skip: tuple[str, ...] | None = None
    """ISO 639-1 codes whose conversations are dropped"""
    max_severity: int | None = None
    """highest severity (0-3) of the lexicon of inappropriate content that stays; 3: any"""
    personal_data: Literal["keep", "mask"] | None = None
    """replace e-mail addresses, phone and account numbers, public IPs and secrets by <EMAIL> ..."""
    duplicate_id: Literal["keep", "drop"] | None = None
    """conversations with the source id of another: the longest stays"""
    duplicate: Literal["keep", "drop"] | None = None
    """conversations with the text of another (blanks and case apart) or of its beginning"""
    duplicate_opening: Literal["keep", "drop"] | None = None
    """conversations whose first round is another's: the longest stays"""
    near_duplicate: float | None = None
    """MinHash similarity (0-1) of 5-word shingles from which a conversation is dropped; 0: off"""

    def __post_init__(self) -> None:
        for name in ("max_repetition", "near_duplicate"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"rules.{name} is {value}; expected a share from 0 to 1.")
        if self.max_severity is not None and not 0 <= self.max_severity <= 3:
            raise ConfigError(f"rules.max_severity is {self.max_severity}; expected 0 to 3.")
        for name in ("language_keep", "language_skip"):
            for code in getattr(self, name) or ():
                if re.fullmatch("[a-z]{2,3}", code) is None:
                    raise ConfigError(
                        f"rules.{name} has {code!r}; expected ISO 639-1 codes such as en or ko."
                    )

    def over(self, base: "Rules") -> "Rules":
        """These rules where they are set, else those of `base`."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return dataclasses.replace(base, **{k: v for k, v in own.items() if v is not None})


def none() -> Rules:
    """Reading only: HTML becomes Markdown, what cannot be read is quarantined, the rest stays."""
    return Rules(
        scores="used",
        plugins="keep",
        alternation="keep",
        ends="keep",
        empty="keep",
        min_chars=0,
        banner="keep",
        blocked_words=(),
        refusal="keep",
        moralizing="keep",
        identity="keep",
        cutoff="keep",
        restarted_list="keep",
        digit_run="keep",
        max_repetition=1.0,
        language_keep=(),
        language_skip=(),
        max_severity=3,
        personal_data="keep",
        duplicate_id="keep",
        duplicate="keep",
        duplicate_opening="keep",
        near_duplicate=0.0,
    )


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
    - Of conversations with the same id or first round the longest stays, not the first; ids and
      texts are not compared with each other.
    - Language is detected with code taken out.
    - New: repeated and continued conversations, and severe inappropriate content.
    """
    return dataclasses.replace(
        none(),
        scores="all",
        plugins="drop",
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
        digit_run="drop",
        max_repetition=0.9,
        max_severity=1,
        personal_data="mask",
        near_duplicate=0.8,
    )


PROFILES = {"vicuna": vicuna, "strict": strict, "none": none}


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanConfig:
    """Raw dumps to clean conversations."""

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """files, folders or globs; local paths, s3:// or gs://"""
    out: str
    """folder to write; the same command goes on with one that was interrupted"""
    profile: Literal["vicuna", "strict", "none"] = "vicuna"
    """which rules: the published recipe, every rule, or reading only"""
    rules: Rules = field(default_factory=Rules)
    """single rules over the profile's"""
    workers: int = 0
    """ranges worked on at a time; 0: one per CPU of the machine or cluster"""
    unit_mb: int = 16
    """MB of raw input in one task's range"""
    shard_mb: int = 64
    """MB of text in one output shard"""

    def __post_init__(self) -> None:
        if not self.inputs:
            raise ConfigError("No input is given; expected a file, a folder or a glob.")
        for name, low, high in (
            ("workers", 0, 100_000),
            ("unit_mb", 1, MAX_UNIT_BYTES >> 20),
            ("shard_mb", 1, 1024),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value}; expected {low} to {high:,}.")

    def resolved(self) -> "CleanConfig":
        """With every rule filled in from the profile."""
        return dataclasses.replace(self, rules=self.rules.over(PROFILES[self.profile]()))


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig:
    """What became of a dump, as a page and as JSON."""

    folder: Annotated[str, tyro.conf.Positional]
    """folder made by `clean`"""
    pack: str | None = None
    """folder made by `pack` from it, for the tokens and the fill of its rows"""
    out: str | None = None
    """folder for report.html and report.json; default: the clean folder itself"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewConfig:
    """Conversations on the terminal, one after another."""

    folder: Annotated[str, tyro.conf.Positional]
    """folder made by `clean`"""
    rule: str | None = None
    """show what this rule dropped, or `quarantine`, instead of what was kept"""
    start: int = 0
    """conversations to skip"""
    limit: int = 20
    """conversations to show when the output is not a terminal"""

    def __post_init__(self) -> None:
        if self.start < 0 or self.limit < 1:
            raise ConfigError("start must be 0 or more, and limit 1 or more.")


@dataclass(frozen=True, kw_only=True, slots=True)
class PackConfig:
    """Clean conversations to packed rows of token ids."""

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """clean folders, each DIR or DIR=weight; a weight of 2 takes every conversation twice, one of
    0.5 takes half of them"""
    tokenizer: str
    """the model's tokenizer.json: local folder, s3://, gs:// or hub id"""
    out: str
    """folder to write; the same command goes on with one that was interrupted"""
    max_length: int = 2048
    """tokens in a row"""
    template: str = "vicuna-v1.1"
    """vicuna-v1.1, llama-2, llama-3, chatml, a folder with a chat_template.jinja, or `own` for the
    tokenizer folder's"""
    val_percent: float = 1.0
    """percent of the source conversations that go to val/, by hash of their id; 0: none"""
    over_long: Literal["truncate_answer", "drop"] = "truncate_answer"
    """a single round longer than a row: cut its answer, without a stop token, or drop the round"""
    mode: Literal["pack", "pad"] = "pack"
    """best-fit-decreasing packing, or one segment a row for comparison"""
    identity: str | None = None
    """conversations about who the model is, for train/: a JSON or JSONL file, or `built-in`"""
    identity_name: str = "Cria"
    """the model's name in the built-in ones"""
    identity_makers: str = "the Cria contributors"
    """who trained it, in the built-in ones"""
    workers: int = 0
    """units worked on at a time; 0: one per CPU of the machine or cluster"""

    def __post_init__(self) -> None:
        if not self.inputs:
            raise ConfigError("No input is given; expected folders made by `clean`.")
        for name, low, high in (
            ("max_length", 8, 1 << 20),
            ("val_percent", 0, 50),
            ("workers", 0, 100_000),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value}; expected {low:,} to {high:,}.")
