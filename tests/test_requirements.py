"""What Cria stands on: every import is pinned exactly, and every licence is permissive."""

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PERMISSIVE = re.compile(
    r"apache|\bmit\b|\bbsd\b|0bsd|\bisc\b|psf|python software|zlib|cc0|hpnd|mpl|mozilla", re.I
)
COPYLEFT = re.compile(r"(?<!l)\bgpl|\bagpl|affero|general public", re.I)
# Dual or unusual licences, read by hand.
READ_BY_HAND: dict[str, str] = {}


def pins(name: str) -> dict[str, str]:
    """Distribution name to exact version in a requirements file, the files it includes apart."""
    lines = (ROOT / name).read_text().splitlines()
    lines = [line for line in lines if line and not line.startswith(("#", "-r"))]
    found = {}
    for line in lines:
        pin = re.fullmatch(r"([\w.-]+)(?:\[[\w,.-]+\])?==([\w.]+)(?:  # .+)?", line)
        assert pin, f"{name}: {line!r} is not pinned as name==version"
        found[normal(pin[1])] = pin[2]
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


OURS = {"apps", "cluster"}
CHECKERS_OWN = {"_typeshed"}
"""types that come with every type checker and that nothing imports when it runs"""
LAUNCHERS_OWN = {"sky"}
"""SkyPilot stays on the machine that launches (cluster/README.md): no run needs its 98 packages"""


def imported_distributions() -> dict[str, set[str]]:
    """Third-party distribution to the files of apps/ and cluster/ that import it."""
    providers = metadata.packages_distributions()
    found: dict[str, set[str]] = {}
    for path in [*(ROOT / "apps").rglob("*.py"), *(ROOT / "cluster").rglob("*.py")]:
        for module in top_level_imports(path):
            if module in sys.stdlib_module_names or module in OURS | CHECKERS_OWN | LAUNCHERS_OWN:
                continue
            names = {normal(name) for name in providers.get(module, [module])}
            found.setdefault("|".join(sorted(names)), set()).add(str(path.relative_to(ROOT)))
    return found


def top_level_imports(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module.partition(".")[0])
    return modules


@pytest.mark.parametrize(
    "name", ["requirements.txt", "requirements-dev.txt", "requirements-gpu.txt"]
)
def test_every_requirement_is_pinned_exactly(name: str) -> None:
    assert pins(name)


def test_every_import_of_the_apps_is_pinned() -> None:
    pinned = pins("requirements.txt") | pins("requirements-gpu.txt")
    missing = {
        names: sorted(files)
        for names, files in imported_distributions().items()
        if not set(names.split("|")) & set(pinned)
    }
    assert missing == {}


def test_a_pin_that_no_file_imports_says_why_it_is_there() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    reasons = {
        normal(re.split(r"\[|==", line)[0]): "  # " in line
        for line in lines
        if line and not line.startswith("#")
    }
    imported = {name for names in imported_distributions() for name in names.split("|")}
    unexplained = [name for name, said in reasons.items() if not said and name not in imported]
    stale = [name for name, said in reasons.items() if said and name in imported]
    assert (unexplained, stale) == ([], [])


def test_every_runtime_pin_is_what_is_installed() -> None:
    wrong = {
        name: (pin, metadata.version(name))
        for name, pin in pins("requirements.txt").items()
        if metadata.version(name).partition("+")[0] != pin
    }
    assert wrong == {}


def licence(name: str) -> str:
    """What a distribution says of its licence, the precise field first."""
    about = metadata.metadata(name)
    classifiers = [line for line in about.get_all("Classifier", []) if line.startswith("License")]
    # By `get`: mlflow brings a package that makes a missing field an error for everybody.
    stated = about.get("License-Expression") or "; ".join(classifiers)
    return stated or (about.get("License") or "")[:200]


@pytest.mark.parametrize("name", sorted(pins("requirements.txt")))
def test_every_direct_dependency_is_permissively_licensed(name: str) -> None:
    stated = READ_BY_HAND.get(name) or licence(name)
    assert PERMISSIVE.search(stated), f"{name} states {stated!r}"
    assert not COPYLEFT.search(stated), f"{name} states {stated!r}"
