"""What the card says of a vote: the rating that the leaderboard has, and what the vote moved."""

from tests.serve.page.live import Person


def test_a_vote_lifts_its_winner_and_says_by_how_much(open_page) -> None:
    page = open_page({"ash": lambda m: "one", "elm": lambda m: "two"})
    changes: list[dict[str, dict[str, int]]] = []
    for winner in ("ash", "elm", "ash", "ash"):
        person = Person(page.url)
        battle = person.wait(person.ask())
        left_is_ash = "one" in battle["sides"][0][0]["html"][0]
        verdict = "left" if left_is_ash == (winner == "ash") else "right"
        voted = person.act("vote", battle=battle["id"], verdict=verdict)
        changes.append(dict(zip(voted["models"], voted["changes"], strict=True)))
    for moved, winner in zip(changes, ("ash", "elm", "ash", "ash"), strict=True):
        loser = {"ash": "elm", "elm": "ash"}[winner]
        assert moved[winner]["change"] > 0 > moved[loser]["change"]
    rows = person.http.get("/leaderboard.json").json()["categories"]["all"]["ratings"]
    assert {row["model"]: row["rating"] for row in rows} == {
        name: change["rating"] for name, change in changes[-1].items()
    }
    styled = person.http.get("/style.json").json()
    assert {row["model"] for row in styled["ratings"]} == {"ash", "elm"}
    assert set(styled["effects"]) == {"length", "headings", "lists", "bold"}


def test_a_vote_with_visible_names_moves_nothing_and_says_why(open_page) -> None:
    person = Person(open_page({"ash": lambda m: "one", "elm": lambda m: "two"}).url)
    battle = person.wait(person.ask(kind="side_by_side", models=["ash", "elm"]))
    voted = person.act("vote", battle=battle["id"], verdict="left")
    assert voted["changes"] == [] and voted["left_out_by"] == "not_blind"
