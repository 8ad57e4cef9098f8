import io
import json
import math
from pathlib import Path

import pytest

from apps.common.command.events import Reporter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", ["80", "200"])
def test_many_fields_leave_the_bar_and_its_count_on_the_screen(monkeypatch, columns) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    with Reporter("auto", screen).progress("train", total=1500, unit="steps") as bar:
        fields = {"loss": 0.027, "lr": 4e-05, "tokens_per_s": 19460.0, "mfu": 0.034, "usd": 0.0377}
        bar.advance(480, **fields)
    shown = screen.getvalue()
    assert "480/1500" in shown
    assert "loss=0.027  lr=4e-05  tokens_per_s=1.946e+04  mfu=0.034  usd=0.0377" in shown


def test_a_number_that_json_lacks_leaves_the_line_json() -> None:
    screen = io.StringIO()
    Reporter("json", screen).event("train.done", loss=math.nan, losses=[math.inf], out=Path("run"))
    written = json.loads(screen.getvalue(), parse_constant=pytest.fail)
    assert (written["loss"], written["losses"], written["out"]) == ("NaN", ["Infinity"], "run")


@pytest.mark.parametrize("path", ["/tmp/a[/b]", "dumps/[ab].json", "[bold]x[/bold]", ":smile:"])
def test_a_path_is_printed_as_it_is(path: str) -> None:
    screen = io.StringIO()
    reporter = Reporter("text", screen)
    reporter.event("clean.done", out=path)
    reporter.line(f"{path} is already finished.")
    assert screen.getvalue() == f"clean.done  out={path}\n{path} is already finished.\n"
