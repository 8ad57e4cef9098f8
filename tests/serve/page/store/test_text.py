"""Texts that no database keeps become texts that every one does."""

import pytest

from apps.serve.page.store.text import split_half, storable
from tests.serve.page.live import Person


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("plain", "plain"),
        ("grüß 😀", "grüß 😀"),
        ("a\0b", "a\ufffdb"),
        ("ü\0", "ü\ufffd"),
        ("\ud83d\ude00", "😀"),
        ("a\ud83d", "a\ufffd"),
        ("\ude00a\ud83d", "\ufffda\ufffd"),
        ("", ""),
    ],
)
def test_a_text_is_kept_whole_but_for_what_is_no_character(text: str, kept: str) -> None:
    assert storable(text) == kept
    kept.encode()


def test_half_a_character_waits_for_its_other_half() -> None:
    assert split_half("ab\ud83d") == ("ab", "\ud83d")
    assert split_half("ab\ude00") == ("ab\ude00", "")
    assert split_half("") == ("", "")


def test_no_text_of_a_visitor_or_a_model_breaks_the_page(open_page, database_url: str) -> None:
    """NUL and halves of characters: JSON carries them, databases refuse them."""
    smile = "\U0001f600"
    halves = smile.encode("utf-16-be", "surrogatepass")
    high, low = (halves[i : i + 2].decode("utf-16-be", "surrogatepass") for i in (0, 2))
    says = f"Nul\0 {high}{low} {high} end"
    page = open_page(
        {"ash": lambda m: says, "elm": lambda m: "fine " * 40}, database_url=database_url
    )
    page.upstream.piece_s = 0.15  # a piece a character: beats write what there is meanwhile
    person = Person(page.url)
    fields = {"kind": "chat", "system": "Be\0 kind"}
    asked = [person.ask(f"Why\0 {high}?", models=[name], **fields) for name in ("ash", "elm")]
    ends = [person.wait(talk)["turns"][0] for talk in asked]
    assert [turn["status"] for turn in ends] == ["done", "done"]
    assert ends[0]["html"] == [f"<p>Nul\ufffd {smile} \ufffd end</p>\n"]
    assert ends[0]["question"] == "Why\ufffd \ufffd?"
    for name, body in (
        ("open", {"id": "a\0"}),
        ("vote", {"battle": high, "verdict": "tie"}),
        ("share", {"id": asked[0]["id"], "turn": "x" * 5000}),
        ("retry", {"turn": "\0"}),
    ):
        assert "not here" in person.act(name, **body)["error"], name
    assert person.act("stop", turns=[{"a": 1}, 2, "\0"]) == {}
    assert person.http.get("/events?turns=%00,x").status_code == 200
