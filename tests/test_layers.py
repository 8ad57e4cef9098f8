"""The layer rules of docs/architecture.md, read from the import statements themselves."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
APPS = ("data", "train", "serve", "eval")
WIRING = {
    "apps/common/command/every_machine.py",
    "apps/common/command/runtime.py",
    "apps/data/pipeline.py",
    *(f"apps/train/{name}.py" for name in ("rank", "relay", "run")),
    "apps/serve/deployment.py",
    "apps/serve/directory.py",
    "apps/serve/launch.py",
    "apps/serve/routing.py",
    "apps/eval/judging/on_ray.py",
    *(f"apps/{app}/__main__.py" for app in APPS),
}
FOLDERS = {
    "common": ("files", "spot", "text", "page", "command"),
    "data": ("html", "read", "write", "rules", "duplicates", "packing", "sample"),
    "data/read": ("record", "layouts"),
    "train": ("model", "gguf", "batches", "parallel", "checkpoint", "loop", "planning", "spot"),
    "serve": (
        "engine",
        "admission",
        "replica",
        "model",
        "request",
        "answer",
        "gateway",
        "page",
        "place",
        "spot",
    ),
    "serve/engine": ("llama", "cpu", "torch", "vllm"),
    "serve/page": ("store", "render", "answers", "arena", "web"),
    "eval": (
        "records",
        "calls",
        "answering",
        "protocols",
        "judging",
        "adaptive",
        "imports",
        "figures",
        "scores",
        "page",
    ),
}
"""The folders of an app, lowest first: a folder imports itself and those before it. The files at
an app's root are commands above its folders, or settings and contracts below them."""
SOURCES = sorted((ROOT / "apps").rglob("*.py"))
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in SOURCES}
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every absolute module name that a file imports, at any depth of nesting, with its line."""
    package = list(path.relative_to(ROOT).with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def under(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def breaches(paths: list[Path], forbidden: list[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in paths
        for name, line in imports(path)
        if any(under(name, package) for package in forbidden)
    ]


def of(app: str) -> list[Path]:
    return [path for path in SOURCES if path.is_relative_to(ROOT / "apps" / app)]


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """The nodes of one circle, or []."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("app", APPS)
def test_an_app_imports_no_other_app(app: str) -> None:
    assert breaches(of(app), [f"apps.{other}" for other in APPS if other != app]) == []


def test_common_is_the_bottom_layer() -> None:
    assert breaches(of("common"), [f"apps.{app}" for app in APPS] + ["apps.quickstart"]) == []


def test_quickstart_uses_the_apps_through_their_command_lines_only() -> None:
    assert (
        breaches([p for p in SOURCES if "quickstart" in p.parts], [f"apps.{app}" for app in APPS])
        == []
    )


@pytest.mark.parametrize("app", FOLDERS)
def test_the_folders_of_an_app_are_layers(app: str) -> None:
    order = FOLDERS[app]
    there = {path.parent.name for path in (ROOT / "apps" / app).glob("*/__init__.py")}
    assert there == set(order), "name every folder in FOLDERS, where it belongs"
    for place, folder in enumerate(order):
        above = [f"apps.{app.replace('/', '.')}.{name}" for name in order[place + 1 :]]
        assert breaches(of(f"{app}/{folder}"), above) == []


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {
        module: {
            target
            for name, _ in imports(path)
            for target in (name, name.rpartition(".")[0])
            if target in MODULES and target != module
        }
        for module, path in MODULES.items()
    }
    assert sum(map(len, graph.values())) > 200
    assert circle(graph) == []


def test_a_circle_is_seen() -> None:
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


def test_ray_is_imported_by_the_wiring_files_only() -> None:
    assert [name for name in WIRING if not (ROOT / name).exists()] == []
    others = [path for path in SOURCES if str(path.relative_to(ROOT)) not in WIRING]
    assert breaches(others, ["ray"]) == []


def test_data_never_imports_torch() -> None:
    assert breaches(of("data"), ["torch"]) == []


def test_ray_is_started_in_one_place_only() -> None:
    starts = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "ray.init"
    ]
    home = "apps/common/command/runtime.py:"
    assert starts and [start for start in starts if not start.startswith(home)] == []


def test_a_file_is_named_after_its_idea() -> None:
    vague = {"utils.py", "helpers.py", "util.py", "misc.py"}
    assert [
        str(p)
        for d in ("apps", "cluster", "tests")
        for p in (ROOT / d).rglob("*.py")
        if p.name in vague
    ] == []
