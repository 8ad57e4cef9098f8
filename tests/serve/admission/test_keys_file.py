"""What people wrote into the file of keys stays."""

from pathlib import Path

import pytest
import yaml

from apps.common.command import cli
from apps.serve.__main__ import COMMANDS
from apps.serve.admission.keys_file import read_keys

A, B = "a" * 64, "b" * 64
WRITTEN = f"""# Our keys; ask Ali before you change any.
keys:
  # until June
  - name: ali
    sha256: {A}
    # agreed on the phone
    requests_per_minute: 60   # twice what he had
  # the shop's machine

  - name: bob
    sha256: '{B}'   # made in May
    models: [vicuna, other]
# the end
"""


def keys(path: Path, *argv: str) -> None:
    assert cli.run("apps.serve", COMMANDS, ("keys", *argv, "--file", str(path))) == 0


@pytest.fixture(params=["\n", "\r\n"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "keys.yaml"
    path.write_bytes(WRITTEN.replace("\n", request.param).encode())
    return path


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_key_that_is_added_stands_below_the_others(path: Path) -> None:
    keys(path, "add", "cem", "--tokens-per-minute", "900")
    before = WRITTEN.splitlines()
    assert lines(path)[: len(before) - 1] == before[:-1] and lines(path)[-1] == "# the end"
    assert [key.name for key in read_keys(str(path))] == ["ali", "bob", "cem"]
    assert read_keys(str(path))[2].tokens_per_minute == 900


def test_a_key_that_is_revoked_takes_its_own_comments_with_it(path: Path) -> None:
    keys(path, "revoke", "ali")
    before = WRITTEN.splitlines()
    assert lines(path) == [*before[:2], *before[7:]]
    keys(path, "revoke", "bob")
    assert lines(path) == [*before[:2], before[7], "", "# the end"]
    keys(path, "add", "cem")
    assert [key.name for key in read_keys(str(path))] == ["cem"] and "# the end" in lines(path)


def test_a_rotation_changes_the_digest_and_nothing_else(path: Path) -> None:
    keys(path, "rotate", "bob")
    new = read_keys(str(path))[1].sha256
    assert new != B and path.read_text() == WRITTEN.replace(f"'{B}'", new)


@pytest.mark.parametrize("argv", [("revoke", "ali"), ("rotate", "bob"), ("add", "cem")])
def test_one_key_under_two_names_is_told_and_nothing_is_changed(
    path: Path, argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text(path.read_text().replace(B, A))
    before = path.read_bytes()
    assert cli.run("apps.serve", COMMANDS, ("keys", *argv, "--file", str(path))) == 2
    assert "has one key under 'ali' and 'bob'" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_rotation_with_a_grace_keeps_the_old_entry_and_says_when_it_ends(path: Path) -> None:
    keys(path, "rotate", "ali", "--grace-hours", "1")
    old, bob, new = read_keys(str(path))
    assert (old.sha256, bob.sha256, new.requests_per_minute) == (A, B, 60)
    assert old.expires is not None and new.expires is None
    kept = [line for line in lines(path) if "expires" not in line]
    assert kept[: len(WRITTEN.splitlines()) - 1] == WRITTEN.splitlines()[:-1]
    keys(path, "rotate", "ali")
    assert [key.name for key in read_keys(str(path))] == ["ali", "bob"]
    assert "    # agreed on the phone" in lines(path)


@pytest.mark.parametrize(
    "text",
    [
        *("", "keys:\n", "keys: []\n", "# none yet\n", "# none yet", "keys: null # none\n"),
        f"keys: [{{name: ali, sha256: {A}}}]\n",
        f"{{keys: [{{name: ali, sha256: {A}}}]}}",
        f"keys: [\n# of the house\n{{name: ali, sha256: {A}}}\n]\n",
        f"keys:\n- {{name: ali, sha256: {A}}}",
        f"keys:\n-\n  name: ali\n  sha256: {A}\n",
        f"keys:\n- &x\n  name: ali\n  sha256: {A}\n- <<: *x\n  name: bob\n  sha256: {B}\n",
        f"\ufeffkeys:\n- name: ali\n  sha256: >-\n    {A}\n",
        f"keys:\n- sha256: |-\n    {A}\n  name: ali\n\n\nother: 1\n",
        f"keys:\n- name: ali\n  sha256: {A}\n  models:\n  - x\n  - y\n",
    ],
)
def test_however_the_file_is_written_the_keys_are_right(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    before = read_keys(str(path))
    keys(path, "add", "cem")
    *others, cem = read_keys(str(path))
    assert others == list(before) and cem.name == "cem"
    for key in (*others, cem):
        keys(path, "rotate", key.name, "--grace-hours", "2")
        keys(path, "rotate", key.name)
    after = read_keys(str(path))
    assert sorted(key.name for key in after) == sorted(key.name for key in (*others, cem))
    assert not {key.sha256 for key in after} & {key.sha256 for key in (*others, cem)}
    for key in after:
        keys(path, "revoke", key.name)
    assert read_keys(str(path)) == () and not yaml.safe_load(path.read_text())["keys"]
    assert ("other: 1" in text) == ("other: 1" in path.read_text())
