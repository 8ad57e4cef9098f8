"""What must not be loaded, seen from a fresh interpreter."""

import subprocess
import sys

import pytest

IMPORT_ALL = """
import importlib, pkgutil, sys
sys.modules["{forbidden}"] = None  # importing it raises ImportError
def fail(name):
    raise
for package in {packages}:
    module = importlib.import_module(package)
    inside = getattr(module, "__path__", [])
    for info in pkgutil.walk_packages(inside, package + ".", onerror=fail):
        importlib.import_module(info.name)
    print(sum(name.startswith(package) for name in sys.modules))
"""


def import_all(*packages: str, forbidden: str) -> int:
    """Imports the packages and all below them; how many modules that were, at the least."""
    script = IMPORT_ALL.format(packages=packages, forbidden=forbidden)
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return min(int(count) for count in result.stdout.split())


@pytest.mark.parametrize("package", ["apps.train.loop", "apps.train.parallel", "apps.serve.engine"])
def test_the_pure_parts_import_where_there_is_no_ray(package: str) -> None:
    assert import_all(package, forbidden="ray") > 3


def test_every_module_of_data_imports_where_there_is_no_torch() -> None:
    assert import_all("apps.data", forbidden="torch") > 30


def test_the_wiring_of_training_imports_where_there_is_no_torch() -> None:
    """Ray loads it in processes that compute nothing."""
    import_all("apps.train.run", forbidden="torch")


def test_the_torch_engine_loads_without_transformers() -> None:
    """It would cost every replica seconds and 200 MB."""
    import_all("apps.serve.engine.torch.engine", forbidden="transformers")
