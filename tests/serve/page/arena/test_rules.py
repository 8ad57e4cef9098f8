"""Rigging does not move the table, and honest visitors lose nearly nothing."""

import dataclasses
import random
import re
from pathlib import Path

import pytest

from apps.common.ratings import Rating
from apps.serve.page.arena import leaderboard
from apps.serve.page.arena.pairing import draw_pair
from apps.serve.page.arena.rules import (
    MANY_OF_ONE_ADDRESS,
    ONE_SIDED,
    PICKS_BATTLES,
    TOO_FAST,
    RuledVote,
    left_out,
)
from apps.serve.page.arena.ruling import apply_rules
from apps.serve.page.store.database import Database
from apps.serve.page.store.refusal import Refusal
from apps.serve.page.store.tables import Battle, Conversation, Visitor, Vote
from apps.serve.page.store.votes import NAMES_A_MODEL, SAID_AT_ONCE
from tests.serve.page.arena.visitors import MODELS, World, board


def ranks(table: dict[str, Rating]) -> dict[str, int]:
    order = sorted(table.values(), key=lambda row: -row.rating)
    return {row.model: place for place, row in enumerate(order, 1)}


def interval_of_rank(table: dict[str, Rating], row: Rating) -> tuple[int, int]:
    """The best and worst rank that the ratings' own intervals leave open."""
    above = sum(other.low > row.high for other in table.values())
    below = sum(other.high < row.low for other in table.values())
    return 1 + above, len(table) - below


@pytest.mark.parametrize("picks", [False, True])
@pytest.mark.parametrize("strength_rank", [0, 3, 7])
def test_a_thousand_bought_votes_move_no_rank_by_more_than_its_interval(
    picks: bool, strength_rank: int
) -> None:
    world = World(seed=strength_rank)
    world.honest(1000)
    honest = list(world.votes)
    before = board(honest)
    model = sorted(MODELS, key=world.strength.__getitem__)[strength_rank]
    world.rigging(model, num_sessions=50, num_votes=1000, picks=picks)
    out = left_out(world.votes, world.drawn)
    after = ranks(board([vote for vote in world.votes if vote.battle_id not in out]))
    for name, row in before.items():
        best, worst = interval_of_rank(before, row)
        assert best <= after[name] <= worst, name
    lost = sum(vote.battle_id in out for vote in honest)
    assert lost <= 0.01 * len(honest)


def test_an_honest_arena_loses_at_most_one_vote_in_a_hundred() -> None:
    world = World(seed=11)
    world.honest(1000)
    assert len(left_out(world.votes, world.drawn)) <= 0.01 * len(world.votes)


def test_a_script_that_votes_faster_than_a_person_reads_is_left_out() -> None:
    world = World(seed=13)
    world.honest(20)
    honest = list(world.votes)
    for n in range(25):
        world._vote("script", "net", *world._pair("script"), outcome=1.0)
        world.votes[-1] = dataclasses.replace(world.votes[-1], created_s=1e6 + 0.4 * n)
    out = left_out(world.votes, world.drawn)
    assert not out.keys() & {vote.battle_id for vote in honest}
    assert sorted(set(out.values())) == [TOO_FAST] and len(out) == 24


def test_every_rule_has_words_on_the_leaderboard() -> None:
    script = (Path(leaderboard.__file__).parents[1] / "web/static/leaderboard.js").read_text()
    named = re.search(r"const RULES = \{(.*?)\};", script, re.S)
    assert named is not None
    known = {TOO_FAST, MANY_OF_ONE_ADDRESS, PICKS_BATTLES, ONE_SIDED, *SAID_AT_ONCE}
    assert set(re.findall(r"(\w+): ", named[1])) == known


def test_one_network_counts_for_a_class_room() -> None:
    world = World(seed=12)
    for _ in range(400):
        world._vote("someone", "one-net", *world._pair("someone"), outcome=0.5)
    reasons = left_out(world.votes, world.drawn)
    assert set(reasons.values()) == {MANY_OF_ONE_ADDRESS} and len(reasons) == 250


def test_pairs_are_drawn_by_weight_and_by_what_they_would_tell() -> None:
    import random

    draw = random.Random(0)
    fought = {("a", "b"): 100, ("a", "c"): 0, ("c", "b"): 100}
    pairs = [draw_pair(["a", "b", "c"], {}, fought, draw) for _ in range(400)]
    assert sum({*pair} == {"a", "c"} for pair in pairs) > 300
    assert 100 < sum(pair == ("a", "c") for pair in pairs) < 300, "sides are random"
    assert all("b" not in draw_pair("abc", {"b": 0}, {}, draw) for _ in range(50))
    with pytest.raises(Refusal, match="two models"):
        draw_pair(["a"], {}, {}, draw)


@pytest.mark.parametrize("named", [0.0, 0.5, 0.9, 1.0])
def test_who_votes_on_every_battle_picks_none(tmp_path: Path, named: float) -> None:
    """Also where one model tells its name in most answers, or fails in them."""
    database, rng, at_s = Database(f"sqlite:///{tmp_path}/page.db"), random.Random(3), 1.7e9
    with database.write() as session:
        session.add(Visitor(id="v", created_s=0, consented_s=None))
        session.flush()
        for number in range(90):
            at_s += 90
            left, right = rng.sample(["vicuna", "ash", "elm"], 2)
            id, is_named = str(number), "vicuna" in (left, right) and rng.random() < named
            session.add(
                Battle(
                    id=id, visitor_id="v", created_s=at_s, left_model=left, right_model=right,
                    blind=True,
                )
            )  # fmt: skip
            session.flush()
            if is_named and number % 2:  # no vote is possible
                talk = Conversation(
                    id=id,
                    visitor_id="v",
                    created_s=at_s,
                    model=left,
                    battle_id=id,
                    side="left",
                    kind="battle",
                    title="",
                    settings={},
                )
                session.add(talk)
                continue
            why = NAMES_A_MODEL if is_named else ""
            verdict = rng.choice(["left", "right", "tie"])
            session.add(
                Vote(
                    battle_id=id, created_s=at_s, visitor_id="v", address="a", verdict=verdict,
                    left_out_by=why,
                )
            )  # fmt: skip
    assert apply_rules(database) == 0
    database.close()


def test_votes_left_out_before_are_not_held_against_the_others() -> None:
    """Of 60 battles with vicuna all votes came too fast, after others with it."""
    votes: list[RuledVote] = []
    for number in range(120):
        models = ("vicuna", "ash") if number % 2 else ("elm", "ash")
        created_s = 90.0 * (number - number % 2) + number % 2
        votes.append(
            RuledVote(
                battle_id=str(number), visitor_id="v", address=str(number), created_s=created_s,
                left=models[0], right=models[1], outcome=0.5,
            )
        )  # fmt: skip
    drawn = {"v": [(vote.left, vote.right) for vote in votes]}
    assert set(left_out(votes, drawn).values()) == {"too_fast"}
