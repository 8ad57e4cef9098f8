"""JSON beyond the standard, as Python, pandas and tables write it."""

import json
import math

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.data.read.record.parse import parse, parse_cell, parse_mended


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": NaN, "b": [-Infinity, Infinity]}', {"a": None, "b": [None, None]}),
        ('{"a": 1e999, "b": 2}', {"a": None, "b": 2}),
        (
            '{"a": NaN, "b": 123456789012345678901234567890}',
            {"a": None, "b": 1.2345678901234568e29},
        ),
        ('{"a": NaN, "b": 1' + "0" * 400 + "}", {"a": None, "b": None}),
        (
            '{"a": "half \\ud83d.", "b": "whole \\ud83d\\ude00"}',
            {"a": "half \ufffd.", "b": "whole 😀"},
        ),
        ('{"a": "\\ude00 first, \\ud83d\\ud83d\\ude00"}', {"a": "\ufffd first, \ufffd😀"}),
        ('{"half \\ud83d": 1, "b": 2}', {"half \ufffd": 1, "b": 2}),
        ('{"a": "tab\there", "b": "line\nbreak"}', {"a": "tab\there", "b": "line\nbreak"}),
    ],
)
def test_what_python_writes_is_read_and_what_means_nothing_is_null(
    text: str, value: object
) -> None:
    assert parse(text.encode()) == value == orjson.loads(orjson.dumps(parse(text)))


@pytest.mark.parametrize("number", [-(1 << 63) - 1, -(1 << 63), (1 << 64) - 1, 1 << 64])
def test_a_whole_number_is_the_same_beside_what_only_python_reads(number: int) -> None:
    plain, beside = parse(f"[{number}]"), parse(f"[{number}, NaN]")
    assert isinstance(plain, list) and isinstance(beside, list)
    assert (beside[0], type(beside[0])) == (plain[0], type(plain[0]))


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", '{"a": undefined}', "[1,]", '"\\x"'])
def test_what_is_no_json_is_none(text: str) -> None:
    assert parse(text.encode()) is None
    assert parse(b"\xff" + text.encode()) is None


def test_texts_with_half_a_character_are_named() -> None:
    value, mended = parse_mended(b'["half \\ud83d", "caf\xc3\xa9", NaN]')
    assert value == ["half \ufffd", "café", None]
    assert mended == ["half \ufffd"]
    assert parse_mended(b'["whole", 1]') == (["whole", 1], [])


def test_two_halves_that_are_characters_of_utf_8_are_one() -> None:
    assert parse('["\ud83d\ude00"]'.encode("utf-8", "surrogatepass")) == ["😀"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1, "a": 2}', {"a": 2, "a (2)": 1}),
        ('[{"b" : "x", "b" : "y"}]', [{"b": "y", "b (2)": "x"}]),
        ('{"a"   :1,"a"   :2,"a"   :3}', {"a": 3, "a (2)": 1, "a (3)": 2}),
        ('{"a": [1], "a": [], "a": null}', {"a": [1]}),
        ('{"a": "", "a": "said"}', {"a": "said"}),
        ('{"a": 1, "a": 1}', {"a": 1}),
        ('{"a (2)": 0, "a": 1, "a": 2}', {"a (2)": 0, "a": 2, "a (3)": 1}),
        ('{"a": NaN, "b": {"c": 1, "c": 2}}', {"a": None, "b": {"c": 2, "c (2)": 1}}),
        ('{"a\\\\": 1, "a\\\\": 2}', {"a\\": 2, "a\\ (2)": 1}),
        ('{"a": ": x", "b": "{\\"c\\": 1, \\"c\\": 2}"}', {"a": ": x", "b": '{"c": 1, "c": 2}'}),
    ],
)
def test_a_key_that_is_there_twice_loses_no_value(text: str, value: object) -> None:
    assert parse(text.encode()) == parse(text) == parse_cell(text) == value


def test_a_key_that_is_there_very_often_is_counted_on() -> None:
    """Counting from 2 for each value would take minutes."""
    number = 50_000
    value = parse("{" + ",".join(f'"a": {i}' for i in range(number)) + "}")
    names = [f"a ({i + 2})" for i in range(number - 1)]
    assert value == {**dict(zip(names, range(number), strict=False)), "a": number - 1}


_KEYS = st.sampled_from(["a", "b", 'c"', "d\\", ":e"])


@given(
    st.recursive(_KEYS | st.none(), lambda inner: st.lists(inner) | st.dictionaries(_KEYS, inner))
)
def test_an_object_without_such_keys_is_what_it_was(value: object) -> None:
    for option in (0, orjson.OPT_INDENT_2):
        assert parse(orjson.dumps(value, option=option)) == value


def test_a_float_and_its_text_are_one() -> None:
    assert parse(json.dumps([math.pi, math.nan])) == [math.pi, None]


def test_a_cell_may_be_a_list_that_python_printed() -> None:
    assert parse_cell("[{'a': None, 'b': True}]") == [{"a": None, "b": True}]
    assert parse_cell("[{'a': {1, 2}}]") is None


@pytest.mark.parametrize("end", ["\n ", "\r\n ", "\n"])
def test_a_cell_may_be_an_array_that_numpy_printed(end: str) -> None:
    said = [{"from": "human", "value": "Is }\n {a it's?"}, {"from": "gpt", "value": '"}\\n {"'}]
    printed = "[" + end.join(map(str, said)) + "]"
    assert parse_cell(printed) == said


_QUOTED = st.text("ab'\"\\ \n,}{][)(é", max_size=8)


@given(
    st.lists(_QUOTED, min_size=1)
    | st.lists(st.dictionaries(st.sampled_from(["from", "value"]), _QUOTED, min_size=1), min_size=1)
)
def test_what_numpy_prints_of_texts_and_messages_is_read_back(items: list[object]) -> None:
    held = np.empty(len(items), dtype=object)
    held[:] = items
    assert parse_cell(str(held)) == items
    assert parse_cell(str(items)) == items


@pytest.mark.parametrize(
    ("printed", "value"),
    [
        ("[\"It's\" 'Hi']", ["It's", "Hi"]),
        ("['Hello' 'Hi there']", ["Hello", "Hi there"]),
        ("[{'a': 'x'} {'a': 'y'}]", [{"a": "x"}, {"a": "y"}]),
        ("[['a' \"it's\"]\n ['c' 'd']]", [["a", "it's"], ["c", "d"]]),
        ("[('user', 'a') ('bot', 'b')]", [["user", "a"], ["bot", "b"]]),
        ("['never closed", None),
        ("['" + "\\'" * 200_000, None),
    ],
)
def test_items_side_by_side_are_items(printed: str, value: object) -> None:
    assert parse_cell(printed) == value
