"""Settings of the data commands; `rules/profiles.py` has those of the single rules."""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from apps.common.errors import ConfigError
from apps.data.html.detect import Html
from apps.data.read.layouts.known import LayoutName
from apps.data.read.names import as_text, parse_map
from apps.data.read.reader import Media, Reading, Tools
from apps.data.rules.profiles import PROFILES, Rules, with_files_read

MAX_UNIT_BYTES = 64 << 20
"""Raw input in one task's range, but for the last record's length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanConfig:
    """Raw dumps to clean conversations."""

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """files, folders or globs; local paths, s3:// or gs://"""
    out: str
    """folder to write; the same command goes on with one that was interrupted"""
    profile: Literal["vicuna", "strict", "none"] = "vicuna"
    """which rules: the published recipe, every rule, or reading only"""
    layout: LayoutName | None = None
    """how conversations are written down; default: each record's own. `layouts` shows them all"""
    map: str = ""
    """names that no layout knows, role:gpt4=assistant,field:body=content,column:dialog=messages,
    or a YAML file of them"""
    tools: Tools = "keep"
    """turns of tools and calls of them: keep (shown by templates that can, results never in the
    loss), drop the turns and the functions, or refuse the conversation"""
    media: Media = "refuse"
    """images, audio and files in a message: refuse the conversation, or drop them from it"""
    html: Html = "auto"
    """answers that are a page's HTML: auto decides by layout and by the whole answer, always reads
    every answer as HTML, never leaves all text as it is"""
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
        """With every rule filled in from the profile, and the names of a YAML file."""
        rules = with_files_read(self.rules.over(PROFILES[self.profile]()))
        return dataclasses.replace(self, rules=rules, map=as_text(parse_map(self.map)))

    def reading(self) -> Reading:
        """How records are read. Raises ConfigError."""
        return Reading(
            layout=self.layout,
            names=parse_map(self.map),
            tools=self.tools,
            media=self.media,
            html=self.html,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LayoutsConfig:
    """The layouts that `clean` reads, with an example of each."""


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
    """vicuna-v1.1, llama-2, llama-3, chatml, gemma, a folder with a chat_template.jinja, or `own`
    for the tokenizer folder's"""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexConfig:
    """Training data to a file that finds the passages which share words with an answer."""

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """a folder made by `pack` (what it held back in val/ stays out), or folders made by `clean`"""
    out: str
    """file to write, such as passages.db; it holds the texts, so keep it like the data"""

    def __post_init__(self) -> None:
        if not self.inputs:
            raise ConfigError("No input is given; expected a folder made by `pack` or `clean`.")
