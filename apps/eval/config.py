"""Settings of every `python -m apps.eval` command; one line of doc, with the unit, per field."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from apps.common.errors import ConfigError
from apps.common.files.config import above_zero, at_least

PRICES = ("usd_per_million_prompt_tokens", "usd_per_million_completion_tokens")
Folder = Annotated[str, tyro.conf.Positional]


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerConfig:
    """Puts questions to models behind OpenAI-compatible endpoints; run again to go on."""

    questions: str
    """Questions file (any layout of apps/eval/records/question.py), or `built-in`."""
    out: str
    """Evaluation folder; answers go to answers/<name>.jsonl."""
    model: tuple[str, ...] = ()
    """NAME=URL[#ENDPOINT_MODEL] of each contestant; NAME alone is an OpenAI model, or one of the
    --endpoints file."""
    endpoints: str | None = None
    """YAML of endpoints by name; see apps/common/files/endpoints.py."""
    answers: tuple[str, ...] = ()
    """NAME=FILE of contestants without an endpoint (FastChat, MT-bench, AlpacaEval layouts)."""
    lineage: tuple[str, ...] = ()
    """NAME=FOLDER of contestants whose model folder (or lineage.json) the report shall cite."""
    references: str | None = None
    """MT-bench's file of reference answers, to be joined to the questions."""
    temperature: float | None = None
    """Sampling temperature for every question; by default it depends on the category."""
    top_p: float = 1.0
    """Nucleus of the sampling, 0-1."""
    max_tokens: int = 1024
    """Longest answer per turn, tokens."""
    system: str | None = None
    """System prompt; none by default."""
    seed: int | None = None
    """Sampling seed sent to the endpoint, where it supports one."""
    concurrency: int = 16
    """Requests in flight per model; at most twice as many conversations are begun at once."""
    timeout_s: float = 300.0
    """Longest wait for one answer, seconds."""
    max_attempts: int = 8
    """Tries of one request before its question is left unanswered, 5 of them where it may be billed
    for each."""
    api_key_env: str = "CRIA_API_KEY"
    """Variable with the key of the endpoints given by URL; OpenAI's own uses OPENAI_API_KEY."""

    def __post_init__(self) -> None:
        if not self.model and not self.answers:
            raise ConfigError("answer needs contestants: --model NAME=URL or --answers NAME=FILE")
        above_zero(self, "", "max_tokens", "concurrency", "timeout_s", "max_attempts", "top_p")
        at_least(0, self, "", "temperature")
        if self.top_p > 1:
            raise ConfigError(f"top_p is {self.top_p:g}; expected more than 0 and at most 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeConfig:
    """Judges all answers of a folder; every response is kept and paid for once."""

    dir: Folder
    """Evaluation folder made by `answer`."""
    protocol: str = "pairwise-swap"
    """How the judge is asked: vicuna-blog, pairwise-swap, single, mt-bench, verdict, or a YAML file
    of one's own; see apps/eval/protocols/load.py."""
    judge: tuple[str, ...] = ("offline",)
    """Judges: `offline` (chrF against references, not a GPT), OpenAI model names, NAME=URL[#MODEL]
    or names of the --endpoints file; a NAME given twice has two endpoints."""
    endpoints: str | None = None
    """YAML of endpoints by name; see apps/common/files/endpoints.py."""
    api_key_env: str = "CRIA_API_KEY"
    """Variable with the key of judges given by URL; OpenAI's own uses OPENAI_API_KEY."""
    against: str | None = None
    """Compare every other model with this one only, shown second; by default all pairs."""
    repeats: int = 1
    """Times each judgment is made."""
    adaptive: bool = False
    """Judge in rounds, each where the order of two models is most in doubt, and stop when the order
    is settled; pairwise protocols."""
    confidence: float = 0.95
    """Chance, 0-1, that two neighbours stand in their right order, at which --adaptive stops."""
    max_usd: float | None = None
    """Never spend more than this on the folder's judgments, US dollars, all runs together; where a
    judge thinks beyond --max-tokens, one call may pass it."""
    dry_run: bool = False
    """Print calls, tokens, dollars and minutes, and stop."""
    allow_missing: bool = False
    """Judge although answers are missing; their judgments count as missing in the report."""
    backend: Literal["live", "batch"] = "live"
    """Live calls, or the Batch API (half the price, up to a day)."""
    batch_poll_s: float = 60.0
    """Time between two looks at a batch, seconds."""
    concurrency: int = 32
    """Calls in flight per endpoint, all tasks together."""
    requests_per_min: float = 500.0
    """Rate limit of each endpoint's account, requests a minute."""
    tokens_per_min: float = 200_000.0
    """Rate limit of each endpoint's account, prompt and completion tokens a minute."""
    num_tasks: int | None = None
    """Ray tasks that share the calls; by default one per 64 calls in flight."""
    timeout_s: float = 120.0
    """Longest wait for one response, seconds."""
    max_attempts: int = 10
    """Tries of one call before it is left for the next run, 5 of them where it may be billed for
    each."""
    max_asks: int = 4
    """Times a judgment is asked for that its token limit cuts off, each with twice the room. One
    that cannot be read is asked once more for its verdict alone; a refusal is final."""
    judge_thoughts: bool = False
    """Show the judge also what reasoning models thought before they answered."""
    judge_equal: bool = False
    """Ask the judge also where both answers are the same; by default that is a tie."""
    temperature: float | None = None
    """Judge's temperature; by default the protocol's."""
    max_tokens: int | None = None
    """Longest judgment, tokens; by default the protocol's. Doubled after a truncated one."""
    self_checks: int = 10
    """Questions on which a model meets itself (A/A check); pairwise protocols, GPT judges."""
    canaries: bool = True
    """Also judge fixed pairs with a known winner, to see a judge drift; GPT judges."""
    prompt_file: str | None = None
    """FastChat's prompt.jsonl for vicuna-blog in its historical wording, without hardening."""
    usd_per_million_prompt_tokens: float | None = None
    """Price of a judge that apps/eval/judging/prices.py does not list, US dollars."""
    usd_per_million_completion_tokens: float | None = None
    """Price of a judge that apps/eval/judging/prices.py does not list, US dollars."""

    def __post_init__(self) -> None:
        above_zero(self, "", "repeats", "concurrency", "requests_per_min", "tokens_per_min")
        above_zero(self, "", "timeout_s", "max_attempts", "max_asks", "num_tasks", "batch_poll_s")
        above_zero(self, "", "max_tokens")
        at_least(0, self, "", "max_usd", "temperature", "self_checks", *PRICES)
        if not 0.5 < self.confidence < 1:
            raise ConfigError(f"confidence is {self.confidence:g}; expected above 0.5 and below 1")
        if self.adaptive and self.backend == "batch":
            raise ConfigError("--adaptive judges in rounds, each a batch's day; use --backend live")
        if not self.judge:
            raise ConfigError("judge needs at least one --judge, such as offline or gpt-4o")
        if self.prompt_file and self.protocol != "vicuna-blog":
            raise ConfigError("prompt_file holds vicuna-blog prompts; add --protocol vicuna-blog")
        if self.backend == "batch" and "offline" in self.judge:
            raise ConfigError("the offline judge makes no API calls; drop --backend batch")

    @property
    def judge_names(self) -> tuple[str, ...]:
        """The judges by name, without their URLs."""
        return tuple(dict.fromkeys(text.partition("=")[0] for text in self.judge))


@dataclass(frozen=True, kw_only=True, slots=True)
class ReparseConfig:
    """Reads all stored judgments with the current parser; makes no call."""

    dir: Folder
    """Evaluation folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig:
    """Scores a folder into report.json and one self-contained report.html."""

    dir: Folder
    """Evaluation folder."""
    title: str = "Evaluation"
    """Heading of the page."""
    allow_missing: bool = False
    """Give totals although judgments are missing, with n of N beside every figure."""
    baseline: str | None = None
    """Model that counts as 100 % in the relative quality; by default the best one."""
    human: str | None = None
    """People's verdicts, which the judge is held against: JSONL
    {question_id, models: [a, b], winner: a, b or tie}, arena battles (JSONL, CSV), the
    page's votes, or the file of MT-bench, PandaLM or FairEval."""
    previous: str | None = None
    """Evaluation folder of an earlier run, to compare with: models, turned questions, canaries."""
    contamination: str | None = None
    """contamination.json made by `contamination`, shown beside the questions."""
    style_control: bool = False
    """Also fit the win rates with length, lists, headings and bold text of the answers held equal;
    raw figures stay beside."""
    reference_set: bool = False
    """Show the published tables of the Vicuna work next to this run: the blog's, which `replay`
    recomputes, and the early draft's, which cannot be recomputed from public data."""
    seed: int = 0
    """Seed of the bootstrap."""
    num_resamples: int = 1000
    """Bootstrap resamples of questions."""

    def __post_init__(self) -> None:
        above_zero(self, "", "num_resamples")
        at_least(0, self, "", "seed")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayConfig:
    """Recomputes the published Vicuna table from its public reviews, or from Cria's score facts."""

    folder: Annotated[str | None, tyro.conf.Positional] = None
    """Folder in the blog's layout, or with --out in MT-bench's (model_judgment/*_single.jsonl and
    *_pair.jsonl); without it the scores that Cria ships are used."""
    mode: Literal["published", "reparsed"] = "published"
    """Stored scores, or the current parser on the raw review texts."""
    json: bool = False
    """Print JSON instead of a table."""
    out: str | None = None
    """New evaluation folder for the questions, answers and reviews, which `report` reads."""
    reviewer: str = "gpt-4"
    """Model that wrote the blog's reviews, as --out shall name the judge."""

    def __post_init__(self) -> None:
        if self.out is not None and self.folder is None:
            raise ConfigError("replay --out imports the reviews of a FOLDER; name it")


@dataclass(frozen=True, kw_only=True, slots=True)
class ContaminationConfig:
    """Looks for the questions in training data: shared n-grams and near-duplicates."""

    questions: Annotated[str, tyro.conf.Positional]
    """Questions file, or `built-in`."""
    data: str
    """Clean folder or pack."""
    out: str = "contamination.json"
    """Where the result goes; `report --contamination` shows it."""
    tokenizer: str | None = None
    """Model or tokenizer folder with which a pack was made."""
    max_overlap: float = 0.5
    """A question is contaminated above this share of its 8-grams, 0-1."""
    max_similarity: float = 0.8
    """A question is contaminated above this similarity with one text, 0-1."""

    def __post_init__(self) -> None:
        at_least(0, self, "", "max_overlap", "max_similarity")


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionsConfig:
    """Writes out the built-in questions, or has a GPT write new ones."""

    action: Annotated[Literal["write", "generate"], tyro.conf.Positional] = "write"
    """write: the built-in set of 80; generate: new ones."""
    out: str = "questions.jsonl"
    """Questions file to write."""
    writer: str = "gpt-4o"
    """OpenAI model, or NAME=URL[#MODEL], that writes, and rates the baselines' answers."""
    api_key_env: str = "CRIA_API_KEY"
    """Variable with the key of endpoints given by URL; OpenAI's own uses OPENAI_API_KEY."""
    category: tuple[str, ...] = ()
    """Categories to write for; all nine by default."""
    per_category: int = 10
    """Questions kept per category."""
    baseline: tuple[str, ...] = ()
    """NAME=URL[#ENDPOINT_MODEL] of models that must find the questions hard."""
    max_baseline_score: float = 8.0
    """A question is too easy if a baseline's answer is rated higher than this, 1-10."""
    data: str | None = None
    """Clean folder or pack in which no question may occur."""
    tokenizer: str | None = None
    """Model or tokenizer folder with which a pack was made."""
    concurrency: int = 16
    """Requests in flight, all categories together."""
    timeout_s: float = 120.0
    """Longest wait for one response, seconds."""
    max_attempts: int = 8
    """Tries of one request before the command gives up."""

    def __post_init__(self) -> None:
        above_zero(self, "", "per_category", "concurrency", "timeout_s", "max_attempts")
        at_least(1, self, "", "max_baseline_score")


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchConfig:
    """Evaluates every checkpoint of a training run as it is committed."""

    run: Annotated[str, tyro.conf.Positional]
    """The run, as given to `apps.train run --out`."""
    questions: str
    """Questions file, or `built-in`."""
    out: str
    """Folder of the curve; each checkpoint gets a folder of its own in it."""
    protocol: Literal["single", "mt-bench"] = "single"
    """How each checkpoint's answers are judged."""
    judge: str = "offline"
    """`offline`, an OpenAI model or NAME=URL[#MODEL]."""
    max_usd: float | None = None
    """Never spend more than this per checkpoint, US dollars."""
    engine: Literal["torch", "vllm"] = "torch"
    """Engine that serves a checkpoint while it is asked."""
    max_tokens: int = 512
    """Longest answer, tokens."""
    poll_s: float = 15.0
    """Time between two looks at the run, seconds."""
    max_idle_s: float = 3600.0
    """End when no checkpoint came for this long, seconds."""
    once: bool = False
    """Evaluate the checkpoints that are there, and end."""

    def __post_init__(self) -> None:
        above_zero(self, "", "max_tokens", "poll_s", "max_idle_s")
        at_least(0, self, "", "max_usd")
