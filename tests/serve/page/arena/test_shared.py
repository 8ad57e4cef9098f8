"""Links that anybody can open, and files that only their visitor gets."""

from tests.serve.page.live import Person

TWO = {"ash": lambda messages: messages[-1]["content"], "elm": lambda messages: "two"}


def test_a_link_shows_what_was_shared_and_nothing_later(open_page) -> None:
    page = open_page(TWO)
    person, reader = Person(page.url), Person(page.url, cookie=False)
    talk = person.wait(person.ask("first", kind="chat", models=["ash"]))
    token = person.act("share", id=talk["id"], turn=talk["turns"][0]["id"])["token"]
    person.wait(person.ask("later", kind="chat", to=talk["id"]))
    shown = reader.http.get(f"/s/{token}.json").json()
    assert shown["models"] == ["ash"] and "later" not in str(shown)
    assert [turn["html"] for turn in shown["columns"][0]] == [["<p>first</p>\n"]]
    assert talk["id"] not in str(shown), "a reader cannot act on it"
    assert 'href="../static' in reader.http.get(f"/s/{token}").text
    person.act("share", id=talk["id"], turn="")
    assert reader.http.get(f"/s/{token}.json").status_code == 404
    assert "not here" in Person(page.url).act("share", id=talk["id"], turn="x")["error"]


def test_a_shared_battle_has_no_names_before_its_vote(open_page) -> None:
    page = open_page({"vicuna-7b": lambda m: "one", "koala-13b": lambda m: "two"})
    person = Person(page.url)
    battle = person.wait(person.ask())
    turn = battle["sides"][0][0]["id"]
    token = person.act("share", id=battle["conversation"], turn=turn)["token"]
    before = person.http.get(f"/s/{token}.json").json()
    assert before["models"] == ["Model A", "Model B"] and len(before["columns"]) == 2
    person.act("vote", battle=battle["id"], verdict="left")
    after = person.http.get(f"/s/{token}.json").json()
    assert sorted(after["models"]) == ["koala-13b", "vicuna-7b"]


def test_a_file_is_its_visitors_own(open_page) -> None:
    page = open_page(TWO)
    person = Person(page.url)
    talk = person.wait(person.ask("first", kind="chat", models=["ash"]))
    branch = person.wait(person.ask("edited", kind="chat", to=talk["id"], first=True))
    saved = person.http.get(f"/download/{talk['id']}.json")
    assert "attachment" in saved.headers["content-disposition"]
    assert [turn["parent"] for turn in saved.json()["turns"]] == [None, None]
    text = person.http.get(f"/download/{talk['id']}.md").text
    assert (
        "## You\n\nedited\n\n## ash\n\nedited\n" in text
        and "Answers by ash." in text
        and "first" not in text.split("##", 1)[1]
    )
    shown = {"turn": talk["turns"][0]["id"]}
    other = person.http.get(f"/download/{talk['id']}.md", params=shown).text
    assert "## You\n\nfirst\n\n## ash\n\nfirst\n" in other and "edited" not in other
    assert Person(page.url).http.get(f"/download/{talk['id']}.json").status_code == 404
    assert len(branch["turns"]) == 2


def test_what_is_deleted_is_gone_and_a_vote_stays(open_page) -> None:
    page = open_page(TWO)
    person = Person(page.url)
    battle = person.wait(person.ask())
    person.act("vote", battle=battle["id"], verdict="left")
    assert person.act("delete", id=battle["id"]) == {}
    assert person.history() == []
    assert person.act("open", id=battle["id"])["sides"] == []
    assert person.http.get("/leaderboard.json").json()["num_votes"] == 1


def test_a_file_for_people_has_each_system_message_where_it_began(open_page) -> None:
    person = Person(open_page(TWO).url)
    talk = person.wait(person.ask("one", kind="chat", models=["ash"], system="Be brief."))
    for text, system in (("two", "Be brief."), ("three", "")):
        last = {"to": talk["id"], "parent": talk["turns"][-1]["id"]}
        talk = person.wait(person.ask(text, kind="chat", system=system, **last))
    saved = person.http.get(f"/download/{talk['id']}.md").text
    told = [
        line for line in saved.split("\n\n") if not line.startswith(("# ", "Answers", "## ash"))
    ]
    assert [line.strip() for line in told][:4] == ["## System", "Be brief.", "## You", "one"]
    assert saved.count("## System") == 2 and "## System\n\n(none)\n\n## You\n\nthree" in saved
