"""The bars that keep the tree readable; `python -m tests.structure` prints the figures."""

import ast
import statistics
from pathlib import Path

from tests import structure

FILES = structure.sources()


def test_no_folder_holds_more_modules_than_a_reader_can_hold() -> None:
    counts = structure.modules_by_folder(FILES)
    assert {f: n for f, n in counts.items() if n > structure.MAX_MODULES} == {}


def test_half_of_the_files_are_short_and_few_are_long() -> None:
    lines = [source.num_lines for source in FILES]
    assert statistics.median(lines) <= structure.MAX_MEDIAN_LINES
    assert structure.quantile(lines, 0.9) <= structure.MAX_P90_LINES


def test_values_have_types() -> None:
    assert structure.any_per_1000(FILES) <= structure.MAX_ANY_PER_1000


def test_no_function_takes_more_than_a_reader_can_hold() -> None:
    assert structure.long_signatures(FILES) == []


def test_an_alias_does_not_hide_any() -> None:
    text = "from typing import Any\nJson = dict[str, Any]\ndef f(a: Json) -> Any: ...\n"
    path = Path(structure.APPS / "made.py")
    source = structure.Source(path=path, text=text, tree=ast.parse(text))
    assert structure.aliases_of_any(source) == {"Json"}
    assert structure.uses_of_any([source]).total() == 4


def test_parameters_are_counted_without_self() -> None:
    (function,) = ast.parse("def f(self, a, /, b, *c, d=1, **e): ...").body
    assert isinstance(function, ast.FunctionDef)
    assert structure.num_parameters(function) == 3
