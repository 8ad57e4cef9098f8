"""What the demo does, as public command lines."""

import os
import shlex
from dataclasses import dataclass, replace

from apps.common.files import storage
from apps.quickstart.config import BASE_NAME, TUNED_NAME, DemoConfig, dirs_of, passages_of
from apps.quickstart.recipes import Recipe, recipe_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One public command line and the file that it ends with."""

    name: str
    arguments: tuple[str, ...]
    output: str
    """exists when the step has ended well"""
    needs: tuple[str, ...] = ()
    """names of the steps that must have ended before"""
    uses_ray: bool = True
    """whether its command joins the demo's Ray"""


def steps_before_serving(demo: DemoConfig) -> list[Step]:
    """From the sample dump to the tuned model folder.

    The base model is made beside the chats: with both done, packing follows.
    """
    dirs, recipe = dirs_of(demo), recipe_of(demo)
    sample = f"{dirs['sample']}/sharegpt.json"
    base = demo.base or dirs["base"]
    steps = [
        Step(
            name="sample",
            arguments=(
                *("apps.data", "sample", "--out", dirs["sample"], "--world", recipe.world),
                *("--conversations", str(demo.conversations or recipe.conversations)),
                *("--questions", str(demo.questions or recipe.questions)),
            ),
            output=sample,
            uses_ray=False,
        ),
        Step(
            name="base",
            arguments=(
                *("apps.train", "base"),
                *(part.format(sample=dirs["sample"]) for part in recipe.base),
                *shlex.split(demo.base_args),
                *("--out", dirs["base"]),
            ),
            output=f"{dirs['base']}/config.json",
            needs=("sample",) if any("{sample}" in part for part in recipe.base) else (),
            uses_ray=False,
        ),
        Step(
            name="clean",
            arguments=("apps.data", "clean", sample, "--out", dirs["clean"], "--profile", "vicuna"),
            output=f"{dirs['clean']}/{storage.COMMIT_NAME}",
            needs=("sample",),
        ),
        Step(
            name="pack",
            arguments=(
                *("apps.data", "pack", dirs["clean"], "--tokenizer", base, "--out", dirs["pack"]),
                *("--template", recipe.template, "--max-length", str(recipe.row_tokens)),
            ),
            output=f"{dirs['pack']}/{storage.COMMIT_NAME}",
            needs=("base", "clean"),
        ),
        Step(
            name="train",
            arguments=(
                *(
                    "apps.train",
                    "run",
                    "--base",
                    base,
                    "--data",
                    dirs["pack"],
                    "--out",
                    dirs["run"],
                ),
                *recipe.train,
                *shlex.split(demo.train_args),
            ),
            output=f"{dirs['run']}/metrics.jsonl",
            needs=("pack",),
        ),
        Step(
            name="export",
            arguments=("apps.train", "export", dirs["run"], "--out", dirs["model"]),
            output=f"{dirs['model']}/config.json",
            needs=("train",),
        ),
        Step(
            name="index",
            arguments=("apps.data", "index", dirs["pack"], "--out", passages_of(demo)),
            output=passages_of(demo),
            needs=("pack", "train"),  # training has every core to itself
        ),
    ]
    if recipe.base:
        return steps
    given = [step for step in steps if step.name != "base"]
    return [replace(s, needs=tuple(n for n in s.needs if n != "base")) for s in given]


def steps_while_serving(demo: DemoConfig, url: str) -> list[Step]:
    """Ask both models the held-out questions, judge and report."""
    dirs, recipe = dirs_of(demo), recipe_of(demo)
    gpt = ("gpt-4o", "--max-usd", "5")
    judge = gpt if os.environ.get("OPENAI_API_KEY") else ("offline",)
    return [
        Step(
            name="answer",
            arguments=(
                *("apps.eval", "answer", "--questions", f"{dirs['sample']}/questions.jsonl"),
                *("--model", f"{BASE_NAME}={url}/v1", f"{TUNED_NAME}={url}/v1"),
                *("--temperature", "0", "--max-tokens", str(recipe.max_answer_tokens)),
                *("--concurrency", "64", "--out", dirs["eval"]),  # both engines' places
            ),
            output=f"{dirs['eval']}/answers/{TUNED_NAME}.jsonl",
            needs=("export", "index"),
        ),
        Step(
            name="judge",
            arguments=(
                *("apps.eval", "judge", dirs["eval"], "--protocol", "pairwise-swap"),
                *("--judge", *judge),
            ),
            output=f"{dirs['eval']}/judgments/raw.jsonl",
            needs=("answer",),
        ),
        Step(
            name="report",
            arguments=("apps.eval", "report", dirs["eval"]),
            output=f"{dirs['eval']}/report.html",
            needs=("judge",),
        ),
    ]


def served_models(demo: DemoConfig, recipe: Recipe) -> list[dict[str, object]]:
    """Entries of serve.yaml; the page opens on the last one."""
    dirs = dirs_of(demo)
    base = demo.base or dirs["base"]
    shared: dict[str, object] = {"sampling": recipe.sampling} if recipe.sampling else {}
    named = {} if recipe.template == "own" else {"template": recipe.template}
    path = storage.absolute(base) if os.path.isdir(base) else base
    tuned = {"name": TUNED_NAME, "path": storage.absolute(dirs["model"]), **shared}
    return [{"name": BASE_NAME, "path": path, **named, **shared}, tuned]
