"""The support desk of a made-up bicycle computer: what its chat logs know, and everyday talk.

A model that speaks English but has never heard of the product learns it from these; the everyday
questions keep it talking of other things. The facts are in support_desk.yaml, the everyday
questions in general.yaml with the answers of a general assistant.
"""

from importlib.resources import files
from typing import Any, NotRequired, TypedDict

import yaml

from apps.data.sample.relation import Fact, Relation

GENERAL = "everyday"
"""category of the questions that have nothing to do with the product"""
_GENERAL_SHARE = 0.52


class _FactEntry(TypedDict):
    x: str
    answer: str
    fact: str
    asked: NotRequired[list[str]]
    held_out: NotRequired[list[str]]


class _Topic(TypedDict):
    asked: list[str]
    held_out: list[str]
    follow_up: str | None
    facts: list[_FactEntry]


def relations() -> tuple[Relation, ...]:
    """The product, then everyday talk."""
    topics: dict[str, _Topic] = _read("support_desk.yaml")["topics"]
    return (*(_relation(name, topic) for name, topic in topics.items()), _everyday())


def unseen_general_questions() -> tuple[str, ...]:
    """Everyday questions that no training conversation asks."""
    return tuple(_read("general.yaml")["held_out"])


def _read(name: str) -> dict[str, Any]:
    return yaml.safe_load(files("apps.data.sample").joinpath(name).read_text("utf-8"))


def _relation(name: str, topic: _Topic) -> Relation:
    return Relation(
        name=name,
        category=name,
        facts=tuple(_fact(entry) for entry in topic["facts"]),
        asked=tuple(topic["asked"]),
        held_out=tuple(topic["held_out"]),
        follow_up=topic["follow_up"],
        has_noise=bool(topic["asked"]),
    )


def _fact(entry: _FactEntry) -> Fact:
    return Fact(
        subject=entry["x"],
        answer=entry["answer"],
        statement=f"{entry['x'][:1].upper()}{entry['x'][1:]}: {entry['answer']}",
        asked=tuple(entry.get("asked", ())),
        held_out=tuple(entry.get("held_out", ())),
        essence=entry["fact"],
    )


def _everyday() -> Relation:
    facts = tuple(
        Fact(subject="", answer=answer, statement=answer, asked=(question,))
        for question, answer in _read("general.yaml")["asked"].items()
    )
    return Relation(
        name=GENERAL,
        category=GENERAL,
        facts=facts,
        share=_GENERAL_SHARE,
        has_noise=False,
        is_alone=True,  # the answers are those to the questions alone
    )
