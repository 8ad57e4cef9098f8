"""Where an answer came from: told to whom it belongs, where the operator allows it."""

import codecs
import json
from pathlib import Path

import pytest

from apps.common.errors import ConfigError, CriaError
from apps.common.passages import Passage, write_passages
from apps.serve.page.arena.sources import check_sources
from apps.serve.page.config import PageConfig, PageLimits
from apps.serve.page.store.database import Database
from apps.serve.page.store.tables import Request
from tests.serve.page.live import Person

SAID = "copper kettles sing a low tune whenever the morning frost leaves the garden"
PASSAGE = f"My aunt used to say that {SAID}, and nobody knew why."
OWN = "this answer shares nothing at all with what the model was ever shown before"


def index(path: Path, *texts: str, made_of: str = "") -> str:
    with write_passages(str(path), made_of) as writer:
        for number, text in enumerate(texts):
            row = Passage(conversation=f"chat-{number}", turn=2, role="assistant", text=text)
            writer.add(row)
    return str(path)


@pytest.fixture
def page(open_page, tmp_path: Path):
    def make(answer: str = f"I think {SAID}.", *texts: str, **settings):
        file = index(tmp_path / "passages.db", *(texts or (PASSAGE,)))
        models = {"ash": lambda m: answer, "elm": lambda m: answer}
        return open_page(models, **{"sources": {"ash": file}, **settings})

    return make


def chat(person: Person, model: str = "ash") -> str:
    """Id of a turn with its answer."""
    return person.wait(person.ask(kind="chat", models=[model]))["turns"][0]["id"]


def test_an_answer_leads_to_the_passage_that_it_repeats(page) -> None:
    person = Person(page().url)
    assert person.act("start")["sources"] == ["ash"]
    found = person.act("sources", turn=chat(person))
    assert not found["is_short"] and found["num_withheld"] == 0
    (passage,) = found["passages"]
    assert (passage["conversation"], passage["turn"], passage["role"]) == ("chat-0", 2, "assistant")
    assert passage["num_words"] == len(SAID.split())
    before, shared, after = passage["pieces"]
    assert shared == [SAID, True] and before[0] + SAID + after[0] == PASSAGE


def test_an_answer_of_the_models_own_has_no_source(page) -> None:
    person = Person(page(OWN).url)
    found = person.act("sources", turn=chat(person))
    assert (found["passages"], found["is_short"], found["min_words"]) == ([], False, 8)


def test_an_answer_that_is_too_short_is_called_so(page) -> None:
    person = Person(page("copper kettles sing").url)
    assert person.act("sources", turn=chat(person))["is_short"]


def test_a_long_passage_is_shown_around_its_longest_run(page) -> None:
    text = f"{'before ' * 300}{SAID} {'after ' * 300}"
    person = Person(page(f"Well, {SAID}.", text).url)
    (passage,) = person.act("sources", turn=chat(person))["passages"]
    texts = [piece for piece, _ in passage["pieces"]]
    assert texts[0] == texts[-1] == "…" and len("".join(texts)) < len(SAID) + 400
    assert "".join(texts[1:-1]) in text


def test_without_an_index_nothing_is_offered_and_nothing_told(page) -> None:
    person = Person(page(sources={}).url)
    assert person.act("start")["sources"] == []
    assert "cannot be searched here" in person.act("sources", turn=chat(person))["error"]
    other = Person(page().url)
    assert "cannot be searched here" in other.act("sources", turn=chat(other, "elm"))["error"]


def test_a_blind_battle_tells_nothing_before_its_vote(page) -> None:
    person = Person(page().url)
    battle = person.wait(person.ask())
    turns = [side[0]["id"] for side in battle["sides"]]
    refused = {person.act("sources", turn=turn)["error"] for turn in turns}
    assert refused == {"Vote first: where an answer came from would name its model."}
    voted = person.act("vote", battle=battle["id"], verdict="tie")
    found = dict(zip(voted["models"], (person.act("sources", turn=t) for t in turns), strict=True))
    assert len(found["ash"]["passages"]) == 1 and "cannot be searched" in found["elm"]["error"]


def test_strangers_and_what_is_no_turn_are_refused(page) -> None:
    opened = page()
    turn = chat(Person(opened.url))
    stranger = Person(opened.url)
    for given in (turn, "", "0" * 32, "' OR 1=1 --"):
        assert "not here any more" in stranger.act("sources", turn=given)["error"]
    assert "not understood" in stranger.act("sources", turn=1)["error"]


def test_an_answer_that_is_not_there_yet_has_no_source(page) -> None:
    opened = page()
    opened.upstream.pieces = 1
    person = Person(opened.url)
    turn = person.ask(kind="chat", models=["ash"])["turns"][0]["id"]
    assert "no answer here yet" in person.act("sources", turn=turn)["error"]
    opened.upstream.pieces = 100


def test_a_look_counts_as_an_answer_for_an_hour(page) -> None:
    opened = page(limits=PageLimits(answers_per_minute=3))
    person = Person(opened.url)
    turn = chat(person)
    assert len(person.act("sources", turn=turn)["passages"]) == 1
    assert len(person.act("sources", turn=turn)["passages"]) == 1
    assert "as much as this page can answer" in person.act("sources", turn=turn)["error"]
    assert "as much as this page can answer" in person.ask(kind="chat", models=["ash"])["error"]
    database = Database(opened.config.database_url)
    with database.write() as session:
        for request in session.query(Request):
            request.created_s -= 90_000
    database.close()
    assert len(person.act("sources", turn=turn)["passages"]) == 1


def test_a_passage_that_moderation_stops_is_withheld_and_counted(page) -> None:
    bad = f"{PASSAGE} Here is {codecs.decode('ubj gb ohvyq n cvcr obzo', 'rot13')}."
    person = Person(page(f"I think {SAID}.", PASSAGE, bad, moderation="lexicon").url)
    found = person.act("sources", turn=chat(person))
    assert [one["conversation"] for one in found["passages"]] == ["chat-0"]
    assert found["num_withheld"] == 1


def test_an_index_that_is_gone_is_a_sentence_of_ours(page, tmp_path: Path) -> None:
    person = Person(page().url)
    turn = chat(person)
    for spoil in (lambda file: file.write_text("no index"), Path.unlink):
        spoil(tmp_path / "passages.db")
        said = person.act("sources", turn=turn)["error"]
        assert said == "The training data cannot be searched right now. Try again in a moment."


def test_at_the_start_a_wrong_index_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "lineage.json").write_text(json.dumps({"inputs": {"data": "aaaa"}}))
    right = index(tmp_path / "right.db", PASSAGE, made_of="aaaa")
    wrong = index(tmp_path / "wrong.db", PASSAGE, made_of="bbbb")
    of_folders = index(tmp_path / "folders.db", PASSAGE)
    paths = {"ash": str(model), "far": ""}
    check_sources({"ash": right, "far": wrong}, paths)
    check_sources({"ash": of_folders}, paths)
    with pytest.raises(ConfigError, match=r"bbbb, but ash was trained on aaaa"):
        check_sources({"ash": wrong}, paths)
    with pytest.raises(ConfigError, match="no model here; expected one of ash, far"):
        check_sources({"oak": right}, paths)
    with pytest.raises(CriaError, match="python -m apps"):
        check_sources({"ash": str(tmp_path / "none.db")}, paths)


def test_it_is_off_by_default() -> None:
    assert PageConfig().sources == {}
