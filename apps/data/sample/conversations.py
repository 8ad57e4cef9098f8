"""Good raw records: people who ask a world's questions, and its answers as the page's HTML."""

import random

from apps.data.sample.page_html import to_chatgpt_html
from apps.data.sample.relation import Fact, Relation, World

PREFIXES = (
    "", "", "", "", "Hi! ", "Hello, ", "Please help. ", "Quick question: ", "I wonder. ",
    "For my homework: ", "My friend asks: ", "One more thing. ", "Just checking: ", "Hey, ",
    "Sorry to bother you. ", "A question: ", "Let me ask: ", "Okay. ", "So, ", "Now tell me: ",
)  # fmt: skip
SUFFIXES = ("", "", "", "", "", "", " Thanks!", " Thank you.", " Please be brief.", " I forgot.")
_PASTED = (
    "I wrote this:\n\n    if a_1 < b_2:\n        run(x)\n\n",
    "My list has <b> and </b> in it.\n",
    "The file is my_data_v2.txt. ",
    "In std::vector<int> v_1 I keep numbers. ",
)
_NUM_ROUNDS = (1, 2, 3, 4, 5, 6)
_ROUND_WEIGHTS = (30, 28, 20, 12, 6, 4)
_FOLLOW_UP_SHARE = 0.2
_PASTED_SHARE = 0.015


class Chats:
    """Conversations about one world, one after the other.

    Facts are drawn as cards are: each once before one comes again. So a dump of few conversations
    asks about each of many, and no opening question is asked twice.
    """

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._flowing = [relation for relation in world if not relation.is_alone]
        self._rng = rng
        self._decks: dict[str, list[Fact]] = {relation.name: [] for relation in world}
        self._openings: set[str] = set()

    def conversation(self, ordinal: int, num_rounds: int | None = None) -> dict[str, object]:
        """One raw record whose first question opens no other."""
        rounds = num_rounds or self._rng.choices(_NUM_ROUNDS, _ROUND_WEIGHTS)[0]
        world = self._flowing if num_rounds else self._world
        while True:
            turns = self._turns(world, rounds)
            if turns[0]["value"] not in self._openings:
                break
            rounds += self._rng.random() < 0.1  # a small world runs out of openings for short ones
        self._openings.add(turns[0]["value"])
        return {"id": f"{letters(self._rng)}_{ordinal}", "conversations": turns}

    def _turns(self, world: World, rounds: int) -> list[dict[str, str]]:
        relation, fact = self._draw(world)
        turns = _round(_ask(relation, fact, self._rng), fact)
        while not relation.is_alone and len(turns) < 2 * rounds:
            follow_up = relation.follow_up
            if follow_up is not None and self._rng.random() < _FOLLOW_UP_SHARE:
                fact = self._card(relation)
                turns += _round(follow_up.format(x=fact.subject), fact)
            else:
                relation, fact = self._draw(self._flowing)
                turns += _round(_ask(relation, fact, self._rng), fact)
        return turns

    def _draw(self, world: World) -> tuple[Relation, Fact]:
        relation = self._rng.choices(world, _shares(world))[0]
        return relation, self._card(relation)

    def _card(self, relation: Relation) -> Fact:
        deck = self._decks[relation.name]
        if not deck:
            deck += self._rng.sample(relation.facts, len(relation.facts))
        return deck.pop()


def _shares(world: World) -> list[float]:
    """How often each relation is drawn: its own share, or its part of what the others leave."""
    left = 1.0 - sum(relation.share or 0.0 for relation in world)
    total = sum(len(relation.facts) + 2 for relation in world if relation.share is None)
    return [
        (len(relation.facts) + 2) * left / total if relation.share is None else relation.share
        for relation in world
    ]


def _round(question: str, fact: Fact) -> list[dict[str, str]]:
    return [
        {"from": "human", "value": question},
        {"from": "gpt", "value": to_chatgpt_html(fact.answer)},
    ]


def _ask(relation: Relation, fact: Fact, rng: random.Random) -> str:
    question = rng.choice(relation.questions(fact))
    if not relation.has_noise:
        return question
    if rng.random() < _PASTED_SHARE:
        return rng.choice(_PASTED) + question
    return rng.choice(PREFIXES) + question + rng.choice(SUFFIXES)


def letters(rng: random.Random) -> str:
    return "".join(
        rng.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=7)
    )
