"""What a sample dump knows, and the ways to ask for it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """One thing that the chatbot shall know."""

    subject: str
    answer: str
    """Markdown, as a clean conversation holds it"""
    statement: str
    """a plain sentence with the same content, for pre-training"""
    asked: tuple[str, ...] = ()
    """ways to ask for this fact alone, beside its relation's"""
    held_out: tuple[str, ...] = ()
    """further ways, which occur nowhere but in the held-out questions"""
    essence: str = ""
    """what an answer in other words must contain to be right; empty: only the answer itself is"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Relation:
    """Facts of one kind and the ways to ask for them; `{x}` is the fact's subject."""

    name: str
    category: str
    facts: tuple[Fact, ...]
    asked: tuple[str, ...] = ()
    """phrasings that occur in the dump"""
    held_out: tuple[str, ...] = ()
    """phrasings that occur nowhere but in the held-out questions"""
    follow_up: str | None = "And what about {x}?"
    """asks for the same relation of another subject; None when it makes no sense"""
    share: float | None = None
    """of all questions that open a conversation; None: by the number of facts"""
    has_noise: bool = True
    """whether greetings, thanks and pasted text may stand around a question"""
    is_alone: bool = False
    """whether a conversation about it is one question and its answer"""

    def questions(self, fact: Fact) -> tuple[str, ...]:
        """Every way in which the dump asks for `fact`."""
        return (*(phrasing.format(x=fact.subject) for phrasing in self.asked), *fact.asked)

    def held_out_questions(self, fact: Fact) -> tuple[str, ...]:
        """Every way in which only the test asks for `fact`."""
        return (*(phrasing.format(x=fact.subject) for phrasing in self.held_out), *fact.held_out)


World = Sequence[Relation]


def held_out_texts(world: World) -> frozenset[str]:
    """Every held-out question."""
    return frozenset(text for _, _, text in held_out(world))


def held_out(world: World) -> Iterator[tuple[Relation, Fact, str]]:
    """Every held-out question with what it asks for."""
    for relation in world:
        for fact in relation.facts:
            for text in relation.held_out_questions(fact):
                yield relation, fact, text


def rows_of(table: str, separator: str) -> list[list[str]]:
    """The cells of each line."""
    return [line.split(separator) for line in table.strip().splitlines()]


def pairs_of(table: str) -> list[tuple[str, str]]:
    """`hot:cold big:small` -> (hot, cold), (big, small)."""
    return [(left, right) for left, right in (word.split(":") for word in table.split())]


def facts_of(rows: list[tuple[str, str]], answer: str, statement: str) -> tuple[Fact, ...]:
    """A fact of each row, of sentences about its `{x}` and `{y}`."""
    return tuple(
        Fact(
            subject=x,
            answer=_upper_first(answer.format(x=x, y=y)),
            statement=_upper_first(statement.format(x=x, y=y)),
        )
        for x, y in rows
    )


def _upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]
