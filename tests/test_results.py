"""The page of figures is made from the last run of each benchmark."""

import json
from pathlib import Path

import pytest

from benchmarks import results


def test_a_run_fills_the_rows_of_its_bars(tmp_path: Path) -> None:
    ratios = {"ours / Trainer, padded": 1.74, "ours / TRL, its best": 1.62}
    path = results.save("train", {"ratios": ratios, "stall_share": 0.0008}, tmp_path / "train.json")
    rows = [line for line in results.table(tmp_path).splitlines() if "`train.py`" in line]
    assert [row.split(" | ")[2] for row in rows] == ["1.74", "1.62", "0.08 %"]
    about = json.loads(path.read_text())["measured"]
    assert set(about) == {"date", "machine", "command"} and about["date"] in rows[0]


def test_what_was_not_run_says_so(tmp_path: Path) -> None:
    results.save("judge", {"trials": [], "kills": None, "ratings_s": 0.3}, tmp_path / "judge.json")
    rows = results.table(tmp_path).splitlines()
    assert sum("not in this run" in row for row in rows) == 3
    assert any("| 0.30 |" in row for row in rows)
    assert all("not run" in row for row in rows if "`data.py`" in row)


def test_a_run_of_one_part_leaves_the_others_with_their_dates(tmp_path: Path) -> None:
    path, speeds = tmp_path / "serve.json", {"ours 32": 10, "fastchat 32": 2}
    api = {name: {"tokens_per_s": speed} for name, speed in speeds.items()}
    path.write_text(json.dumps({"measured": {"date": "then", "machine": "slow"}, "api": api}))
    results.save("serve", {"start": {"ours": {"ready_s": 9.0}}}, path, in_parts=True)
    results.save("serve", {"start": {"ours": {"ready_s": 8.0}}}, path, in_parts=True)
    rows = results.table(tmp_path).splitlines()
    assert any("| 5.00 | `serve.py` | then, slow" in row for row in rows)
    assert any("| 8.00 | `serve.py` |" in row and "then" not in row for row in rows)


def test_the_page_shows_the_stored_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"above\n{results.BEGIN}\nold\n{results.END}\nbelow\n")
    monkeypatch.setattr(results, "PAGE", page)
    results.main()
    above, table, below = (part.strip() for part in page.read_text().split("-->"))
    assert above.startswith("above") and below == "below"
    assert "old" not in table and "HTML to Markdown" in table
