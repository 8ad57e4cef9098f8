"""A resumed run never takes up what other code wrote: the digest of the code sees every source."""

import shutil
from pathlib import Path

import pytest

import apps
from apps.data.units import code_digest, digest_of_sources


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("*.pyc", "*.js", "*.css", "*.json*", "*.csv")
    for app in ("common", "data"):
        shutil.copytree(Path(apps.__file__).parent / app, tmp_path / app, ignore=ignored)
    assert digest_of_sources(tmp_path) == code_digest()
    return tmp_path


def test_a_change_in_a_folder_of_the_app_changes_the_digest(sources: Path) -> None:
    file = sources / "data" / "read" / "records.py"
    file.write_text(file.read_text() + "# more\n")
    assert digest_of_sources(sources) != code_digest()


@pytest.mark.parametrize("target", ["data/read/other.py", "data/write/records.py", "data/x/y/z.py"])
def test_a_file_that_is_renamed_or_moved_changes_the_digest(sources: Path, target: str) -> None:
    (sources / target).parent.mkdir(parents=True, exist_ok=True)
    (sources / "data" / "read" / "records.py").rename(sources / target)
    assert digest_of_sources(sources) != code_digest()


def test_a_new_file_of_common_changes_the_digest(sources: Path) -> None:
    (sources / "common" / "text" / "new.py").touch()
    assert digest_of_sources(sources) != code_digest()
