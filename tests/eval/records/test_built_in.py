"""The references of the built-in questions are right: they are run, or solved another way."""

import random
import sqlite3
from fractions import Fraction
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

from apps.eval.contamination import measure
from apps.eval.records.question import BUILT_IN, is_correct, load_questions

QUESTIONS = {question.question_id: question for question in load_questions(BUILT_IN)}


def program(question_id: str) -> dict[str, Any]:
    """The names that a reference's program defines; the prose after it is left out."""
    parts = QUESTIONS[question_id].reference[0].split("\n\n")
    for end in range(len(parts), 0, -1):
        try:
            code = compile("\n\n".join(parts[:end]), question_id, "exec")
        except SyntaxError:
            continue
        names: dict[str, Any] = {}
        exec(code, names)
        return names
    raise AssertionError(f"{question_id} holds no program")


def test_merged_intervals_cover_the_same_points() -> None:
    merge = program("coding-1")["merge"]
    rng = random.Random(0)
    for _ in range(200):
        given = [(a, a + rng.randrange(5)) for a in (rng.randrange(30) for _ in range(8))]
        before = list(given)
        merged = merge(given)
        assert given == before and merged == sorted(merged)
        assert all(first[1] < second[0] for first, second in pairwise(merged))
        covered = [
            {x / 2 for a, b in some for x in range(2 * a, 2 * b + 1)} for some in (given, merged)
        ]
        assert covered[0] == covered[1]
    assert merge([]) == [] and merge([(2, 3), (1, 2)]) == [(1, 3)]


def test_the_first_offending_bracket_is_found() -> None:
    first_offence = program("coding-3")["first_offence"]
    found = {text: first_offence(text) for text in ("a(b)[c]{}", "([)]", "(()", "x]", "([", "")}
    assert found == {"a(b)[c]{}": -1, "([)]": 2, "(()": 0, "x]": 1, "([": 0, "": -1}


def test_the_latest_order_of_each_customer_is_selected() -> None:
    query = QUESTIONS["coding-4"].reference[0].split("\n\n")[0]
    base = sqlite3.connect(":memory:")
    base.execute("CREATE TABLE orders (id, customer_id, created_at, amount)")
    rows = [(1, 7, "2024-01-01", 10), (2, 7, "2024-01-02", 20), (3, 7, "2024-01-02", 30)]
    base.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", [*rows, (4, 8, "2023-01-01", 5)])
    assert sorted(base.execute(query).fetchall()) == [(7, 30), (8, 5)]
    base.close()


def test_the_cache_drops_what_was_used_longest_ago() -> None:
    cache = program("coding-5")["LRU"](2)
    for key, value in (("a", 1), ("b", 2), ("a", 3)):
        cache.put(key, value)
    cache.put("c", 4)
    assert [cache.get(key) for key in "abc"] == [3, None, 4]
    empty = program("coding-5")["LRU"](0)
    empty.put("a", 1)
    assert empty.get("a") is None


def test_the_most_frequent_words_are_ordered_and_compared_without_case(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Beta alpha, ALPHA beta2 gamma\nDelta's delta", encoding="utf-8")
    found = program("coding-7")["most_frequent"](str(text), 4)
    assert found == [("alpha", 2), ("beta", 2), ("delta", 2), ("gamma", 1)]


def test_the_repaired_loop_removes_every_even_number_in_place() -> None:
    assert "`numbers[:] = [n for n in numbers if n % 2]`" in QUESTIONS["coding-2"].reference[0]
    numbers = alias = [2, 2, 3, 4, 5, 6, 6]
    numbers[:] = [n for n in numbers if n % 2]
    assert alias == [3, 5]


def test_the_mathematical_references_equal_what_counting_finds() -> None:
    rounds = [[ball < 2 for ball in order] for order in permutations(range(5), 4)]
    assert len(rounds) == 120, "a small bag checks the method: 2 red and 3 blue balls"
    method = Fraction(2 * 3, 10) * Fraction(1, 2)
    exact = Fraction(sum(sum(r[:3]) == 1 and r[3] for r in rounds), len(rounds))
    assert exact == method
    seconds = Fraction(5 * 21, 220) * Fraction(4, 9)
    zeros = [Fraction(8, 3), Fraction(-4, 3)]
    assert all(abs(2 * x - 3) + abs(x + 1) == 6 for x in zeros)
    counted = sum(sum(n % d == 0 for d in (6, 10, 15)) == 1 for n in range(1, 1001))
    answers = {
        "math-1": f"{float(seconds):.4f}",
        "math-2": f"{float(sum(zeros)):.4f}",
        "math-3": str(counted),
    }
    for name, answer in answers.items():
        assert is_correct(QUESTIONS[name], f"The answer:\n{answer}") is True


def test_no_built_in_question_resembles_the_public_80(real_data: Path) -> None:
    public = load_questions(str(real_data / "vicuna-blog-eval" / "question.jsonl"))
    found = measure([*QUESTIONS.values()], iter([question.turns[0] for question in public]))
    assert max(row["overlap"] for row in found["per_question"]) == 0
    assert max(row["similarity"] for row in found["per_question"]) < 0.25
