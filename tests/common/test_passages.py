"""What is found in a file of passages, and what a file that is none is called."""

import random
import sqlite3
from pathlib import Path

import pytest

from apps.common.errors import CorruptError, InputError, NotFoundError
from apps.common.passages import Passage, Passages, open_passages, write_passages

POEM = "the quick brown fox jumps over the lazy dog while seven wise owls watch from the old barn"


def passage(text: str, conversation: str = "c1", turn: int = 2) -> Passage:
    return Passage(conversation=conversation, turn=turn, role="assistant", text=text)


def written(path: Path, *passages: Passage) -> Passages:
    with write_passages(str(path), made_of="digest") as writer:
        for one in passages:
            writer.add(one)
    return open_passages(str(path))


def test_the_longest_run_is_found_with_its_place(tmp_path: Path) -> None:
    found = written(
        tmp_path / "p.db",
        passage("Nothing here is like the question at all, whatever one may say."),
        passage(f"Once, {POEM}. The end.", "c2", 4),
        passage("Well: THE QUICK, brown fox jumps over the lazy dog; and no more.", "c3"),
    ).sharing(f"It is told that {POEM}, and so on.")
    assert [(one.passage.conversation, one.passage.turn, one.num_words) for one in found] == [
        ("c2", 4, 18),
        ("c3", 2, 9),
    ]
    start, end = found[0].longest
    assert found[0].passage.text[start:end] == POEM
    start, end = found[1].longest
    assert found[1].passage.text[start:end] == "THE QUICK, brown fox jumps over the lazy dog"


def test_fewer_words_than_a_run_needs_are_no_source(tmp_path: Path) -> None:
    passages = written(tmp_path / "p.db", passage(POEM))
    assert passages.sharing("fox jumps over the lazy dog while") == []
    assert passages.sharing("a fox jumps over the lazy dog while one looks away from it") == []
    assert len(passages.sharing("a fox jumps over the lazy dog while seven look away")) == 1
    assert passages.sharing("") == []


def test_every_shared_run_is_marked_and_overlapping_ones_once(tmp_path: Path) -> None:
    words = POEM.split()
    first, second = " ".join(words[:9]), " ".join(words[9:])
    passages = written(tmp_path / "p.db", passage(f"{first} AND ALSO {second}"))
    (found,) = passages.sharing(f"{second}. {first}. {' '.join(words[2:12])}")
    assert [found.passage.text[a:b] for a, b in found.runs] == [first, second]


def test_scripts_without_blanks_are_found(tmp_path: Path) -> None:
    text = "首先准备面粉清水盐和天然酵母，把它们混合在一起。"
    passages = written(tmp_path / "p.db", passage(text))
    (found,) = passages.sharing("好的！首先准备面粉清水盐和天然酵母，然后等待。")
    start, end = found.longest
    assert text[start:end] == "首先准备面粉清水盐和天然酵母" and found.num_words == 7


def test_equal_texts_and_pieces_of_one_message_are_shown_once(tmp_path: Path) -> None:
    passages = written(
        tmp_path / "p.db",
        passage(POEM, "c1"),
        passage(POEM, "c2"),
        passage(f"More of it: {POEM}", "c1"),
        passage(f"Said again: {POEM}", "c3"),
    )
    found = passages.sharing(POEM)
    assert [one.passage.conversation for one in found] == ["c1", "c3"]


def test_no_more_are_given_than_asked_for(tmp_path: Path) -> None:
    many = [passage(f"number {n}: {POEM}", f"c{n}") for n in range(400)]
    longest = passage(f"{POEM} and then they all slept", "longest")
    passages = written(tmp_path / "p.db", *many, longest)
    found = passages.sharing(f"{POEM} and then they all slept")
    assert len(found) == 5 and found[0].passage.conversation == "longest"


def test_any_run_of_eight_words_is_found_among_many_passages(tmp_path: Path) -> None:
    draw = random.Random(0)
    texts = [[str(draw.randrange(500)) for _ in range(60)] for _ in range(300)]
    kept = [passage(" ".join(text), f"c{number}") for number, text in enumerate(texts)]
    passages = written(tmp_path / "p.db", *kept)
    for text, own in list(zip(texts, kept, strict=True))[:40]:
        start = draw.randrange(52)
        found = passages.sharing(" ".join(["x", *text[start : start + 8], "y"]))
        assert own in [one.passage for one in found]


def test_a_run_that_is_cut_leaves_no_file_and_keeps_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "p.db"
    written(path, passage(POEM))
    with pytest.raises(RuntimeError), write_passages(str(path)) as writer:
        writer.add(passage("something else that is also long enough to be found here"))
        raise RuntimeError
    assert [file.name for file in tmp_path.iterdir()] == ["p.db"]
    assert open_passages(str(path)).made_of == "digest"


def test_what_is_no_index_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="python -m apps"):
        open_passages(str(tmp_path / "none.db"))
    (tmp_path / "text").write_text("hello")
    with pytest.raises(CorruptError, match="python -m apps"):
        open_passages(str(tmp_path / "text"))
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(CorruptError, match="python -m apps"):
        open_passages(str(tmp_path / "other.db"))
    passages = written(tmp_path / "old.db", passage(POEM))
    with sqlite3.connect(passages.path) as connection:
        connection.execute("UPDATE about SET value = '0' WHERE name = 'format'")
    connection.close()
    with pytest.raises(CorruptError, match="format"):
        open_passages(passages.path)
    with pytest.raises(InputError, match="local"), write_passages("s3://bucket/p.db"):
        pass
