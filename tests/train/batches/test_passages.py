"""Text files as people have them."""

from pathlib import Path

import pytest

from apps.common.errors import InputError
from apps.train.batches.passages import read_passages


def test_a_mark_of_utf_8_is_no_part_of_the_text(tmp_path: Path) -> None:
    """Editors on Windows begin files with one."""
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfred cat\r\ngreen dog\r\n")
    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "blue river"}\n')
    (tmp_path / "c.JSONL").write_bytes(b'{"text": "small house"}\n')
    said = ["red cat", "green dog", "blue river", "small house"]
    assert list(read_passages([str(tmp_path)])) == said


def test_half_a_character_is_refused_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "ok"}\n{"text": "half \\ud83d"}\n')
    with pytest.raises(InputError, match=r"Line 2 of .* cannot be read .*surrogates not allowed"):
        list(read_passages([str(tmp_path)]))
