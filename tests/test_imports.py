"""What must not be loaded, seen from a fresh interpreter."""

import subprocess
import sys

import pytest

IMPORT_ALL = """
import importlib, pkgutil, sys
sys.modules["{forbidden}"] = None  # importing it raises ImportError
for package in {packages}:
    module = importlib.import_module(package)
    for found in pkgutil.iter_modules(getattr(module, "__path__", [])):
        if found.name not in {skipped}:
            importlib.import_module(f"{{package}}.{{found.name}}")
"""


def import_all(*packages: str, forbidden: str, skipped: tuple[str, ...] = ()) -> None:
    script = IMPORT_ALL.format(packages=packages, forbidden=forbidden, skipped=skipped)
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.parametrize("package", ["apps.train.loop", "apps.serve.engine"])
def test_the_pure_parts_import_where_there_is_no_ray(package: str) -> None:
    import_all(package, forbidden="ray")


def test_every_module_of_data_imports_where_there_is_no_torch() -> None:
    import_all("apps.data", forbidden="torch")


def test_the_wiring_of_training_imports_where_there_is_no_torch() -> None:
    """Ray loads it in processes that compute nothing."""
    import_all("apps.train.trainer", forbidden="torch")


def test_the_torch_engine_loads_without_transformers() -> None:
    """It would cost every replica seconds and 200 MB."""
    import_all("apps.serve.engine.torch_engine", forbidden="transformers")
