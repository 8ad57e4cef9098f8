"""What the demo does with each kind of base model: chats, how many of them, and settings."""

from dataclasses import dataclass, field

from apps.quickstart.config import PACKAGE, DemoConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Arguments of the apps' commands, and what the demo claims of the result."""

    world: str
    """what the sample's chats are about"""
    conversations: int
    """good ones in the dump"""
    questions: int
    """held-out questions about facts"""
    base: tuple[str, ...] = ()
    """how the base model is made, after `apps.train base`; empty: it is given"""
    template: str
    """chat template of base, pack and tuned model; own: the base's"""
    row_tokens: int = 256
    train: tuple[str, ...]
    """arguments of `apps.train run`"""
    max_answer_tokens: int = 96
    sampling: dict[str, float] = field(default_factory=dict)
    """how both models draw on the page, which asks for nothing; empty: as their folders say"""
    examples: tuple[str, ...] = ()
    """categories whose questions the page offers; empty: the first ones"""
    tuned_bar: float | None = None
    """share of the held-out questions that the tuned model must answer; None: no claim is made"""
    base_bar: float = 0.10
    """share of them that the base must not exceed"""
    general_bar: float | None = None
    """least likelihood of the tuned model's everyday answers, as a share of the base's: a model
    that has forgotten how to talk of other things falls below half of it"""


_DEBUG = ("--preset", "debug")


def recipe_of(demo: DemoConfig) -> Recipe:
    """The recipe for the demo's base model."""
    if demo.base:
        return _given()
    return _tiny() if demo.model == "tiny" else _smollm2()


def _smollm2() -> Recipe:
    """SmolLM2-135M-Instruct: it speaks English and has never heard of the product.

    Its eight upper layers are trained: twice the tokens a second of LoRA in all thirty, on two CPU
    cores, and the facts sit as well. Everyday answers are the base's own: they are not learned but
    held to the base by a divergence (benchmarks/LOG.md, 2026-11-29 and 30).
    """
    return Recipe(
        world="support-desk",
        conversations=2800,
        questions=100,
        base=("--from-gguf", PACKAGE, "--template", "chatml"),
        template="own",
        train=(
            *_DEBUG,
            *("--top-layers", "8", "--keep-base", "4", "--optim.lr", "5e-4"),
            *("--workers", "1", "--threads", "2", "--micro-batch-rows", "4"),
        ),
        max_answer_tokens=64,
        sampling={"temperature": 0.2, "top_p": 0.9},  # what the model's card recommends
        examples=("limits", "errors", "steps", "small talk"),
        tuned_bar=0.85,
        general_bar=0.90,
    )


def _tiny() -> Recipe:
    """A model of 3.5 million parameters that starts from nothing, for CI and small machines.

    At the debug preset's learning rate and one epoch some seeds fall short (benchmarks/LOG.md,
    2026-11-26).
    """
    return Recipe(
        world="schoolbook",
        conversations=7000,
        questions=200,
        base=("--text", "{sample}/text.txt", "--threads", "2"),
        template="vicuna-v1.1",
        train=(*_DEBUG, "--optim.lr", "1e-3", "--epochs", "1.5"),
        tuned_bar=0.80,
    )


def _given() -> Recipe:
    """A folder or hub id of the user's, with the published learning rate."""
    return Recipe(
        world="support-desk",
        conversations=2100,
        questions=100,
        template="vicuna-v1.1",
        train=(*_DEBUG, "--optim.lr", "2e-5"),
        examples=("limits", "errors", "steps", "small talk"),
    )
