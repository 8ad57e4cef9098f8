"""The bars that keep the tree readable; `python -m tests.structure` prints the figures."""

import ast
from pathlib import Path

from tests import structure

FILES = structure.sources()


def test_no_folder_holds_more_modules_than_a_reader_can_hold() -> None:
    counts = structure.modules_by_folder(FILES)
    assert {f: n for f, n in counts.items() if n > structure.MAX_MODULES} == {}


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
