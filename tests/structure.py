"""How the tree is built, in figures: files, functions, types, duplicates of names.

    python -m tests.structure

Reads the sources under apps/ and prints one line a figure; test_structure.py holds the bars.
"""

import ast
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

APPS = Path(__file__).resolve().parent.parent / "apps"
MAX_MODULES, MAX_PARAMETERS = 17, 8
MAX_MEDIAN_LINES, MAX_P90_LINES, MAX_ANY_PER_1000 = 110, 260, 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One module that is not empty."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        return self.path.relative_to(APPS.parent).as_posix()

    @property
    def num_lines(self) -> int:
        return len(self.text.splitlines())


def sources() -> list[Source]:
    paths = sorted(path for path in APPS.rglob("*.py") if path.stat().st_size)
    texts = [path.read_text(encoding="utf-8") for path in paths]
    return [
        Source(path=path, text=text, tree=ast.parse(text))
        for path, text in zip(paths, texts, strict=True)
    ]


def modules_by_folder(files: Sequence[Source]) -> Counter[str]:
    return Counter(Path(source.name).parent.as_posix() for source in files)


def aliases_of_any(source: Source) -> set[str]:
    """Names given to a type that contains Any: `Json = dict[str, Any]` hides it from the count."""
    return {
        target.id
        for node in source.tree.body
        if isinstance(node, ast.Assign)
        if isinstance(node.value, ast.Subscript | ast.BinOp | ast.Name)
        if any(_is_any(part) for part in ast.walk(node.value))
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _is_any(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "Any"


def uses_of_any(files: Sequence[Source]) -> Counter[str]:
    """Times that each file says Any, or a name that hides it, beside imports."""
    hidden = set[str]().union(*(aliases_of_any(source) for source in files))
    return Counter(
        {
            source.name: sum(
                isinstance(node, ast.Name) and node.id in {"Any", *hidden}
                for node in ast.walk(source.tree)
            )
            for source in files
        }
    )


def any_per_1000(files: Sequence[Source]) -> float:
    """Of lines."""
    return 1000 * uses_of_any(files).total() / sum(source.num_lines for source in files)


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(files: Sequence[Source]) -> Iterator[tuple[Source, Function]]:
    for source in files:
        for node in ast.walk(source.tree):
            if isinstance(node, Function):
                yield source, node


def num_parameters(function: Function) -> int:
    """Without self, cls and the typing context that numba hands to an intrinsic."""
    taken = function.args
    names = [a.arg for a in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"], ["typing_context"]))


def long_signatures(files: Sequence[Source]) -> list[str]:
    return [
        f"{source.name}:{node.lineno} {node.name} takes {num_parameters(node)}"
        for source, node in functions(files)
        if node.name != "__init__" and num_parameters(node) > MAX_PARAMETERS
    ]


def quantile(values: Sequence[int], share: float) -> int:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    files = sources()
    lines = [source.num_lines for source in files]
    lengths = [(node.end_lineno or 0) - node.lineno + 1 for _, node in functions(files)]
    uses = uses_of_any(files)
    folder, most = modules_by_folder(files).most_common(1)[0]
    rate = any_per_1000(files)
    print(f"{len(files)} modules, {sum(lines)} lines; fullest folder {folder}: {most}")
    print(f"lines a file: median {statistics.median(lines):.0f}, p90 {quantile(lines, 0.9)}")
    print(
        f"lines a function: median {statistics.median(lengths):.0f}, p90 {quantile(lengths, 0.9)}"
    )
    print(f"Any, or a name that hides it: {rate:.1f} in 1,000 lines")
    print("  most:", ", ".join(f"{name} {count}" for name, count in uses.most_common(8)))
    print(f"functions of more than {MAX_PARAMETERS} parameters: {len(long_signatures(files))}")
    print(*(f"  {line}" for line in long_signatures(files)), sep="\n")


if __name__ == "__main__":
    main()
