"""Tables as records: what a cell may hold, and what a damaged row costs."""

import csv
import io
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from apps.data.read import csv_rows
from tests.data.commands import rows_of, run_clean

TALK = [{"from": "human", "value": "What floats?"}, {"from": "gpt", "value": "Cork, it's said."}]


def texts(folder: Path) -> list[list[str]]:
    return [[m["content"] for m in row["messages"]] for row in rows_of(folder)]


def cleaned(folder: Path, name: str, data: bytes) -> dict[str, Any]:
    (folder / name).write_bytes(data)
    return run_clean(folder / "out", folder / name, profile="none")


def test_a_list_as_python_prints_it_is_read(tmp_path: Path) -> None:
    cell = str(TALK).replace('"', '""')
    cleaned(tmp_path, "dump.csv", f'id,conversations\n1,"{cell}"\n'.encode())
    assert texts(tmp_path / "out") == [["What floats?", "Cork, it's said."]]


def test_a_row_that_is_broken_costs_itself_only(tmp_path: Path) -> None:
    data = b"prompt,completion\nA?,One.\nB?,Two.,three\nC\xff?,Three.\n\nD?,Four.\n"
    ledger = cleaned(tmp_path, "dump.csv", data)
    assert texts(tmp_path / "out") == [["A?", "One."], ["D?", "Four."]]
    assert ledger["records"]["quarantined"] == {"bad-utf-8": 1, "bad-message": 1}


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_files_of_spreadsheets_are_read(mark: str, end: str, tmp_path: Path) -> None:
    lines = ["question;answer", '"Two;\nlines?";Yes.', "Täglich?;Nein."]
    cleaned(tmp_path, "dump.csv", (mark + end.join(lines)).encode())
    assert texts(tmp_path / "out") == [["Two;\nlines?", "Yes."], ["Täglich?", "Nein."]]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('A?,B\nC?,"D\nE?,F\nG?,H\n', [("A?", "B"), ("C?", '"D'), ("E?", "F"), ("G?", "H")]),
        ('A?,"B\nC?,D\nE?,"F\n', [("A?", '"B'), ("C?", "D"), ("E?", '"F')]),
        ('"Say "hi" to me",hi\n"C\nD?",E\n', [('"Say "hi" to me"', "hi"), ("C\nD?", "E")]),
        ('"A ""b""?",""\n,\n"C?",D\n', [('A "b"?', ""), ("C?", "D")]),
    ],
)
def test_a_quote_that_somebody_wrote_swallows_no_rows(
    text: str, rows: list[tuple[str, str]], tmp_path: Path
) -> None:
    for separator in (",", "\t"):
        head = f"prompt{separator}completion\n"
        found = csv_rows.rows_of_csv([(head + text.replace(",", separator)).encode()])
        told = [(row["prompt"], row["completion"]) for row in found if isinstance(row, dict)]
        assert [row for row in told if any(row)] == rows


def test_quotes_of_a_table_without_quoting_stay(tmp_path: Path) -> None:
    cleaned(tmp_path, "dump.tsv", b'prompt\tcompletion\n"Stop" he said. Then?\t"Go" she said.\n')
    assert texts(tmp_path / "out") == [['"Stop" he said. Then?', '"Go" she said.']]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_of_two_columns_of_a_name_the_second_is_ignored_and_told(form: str, tmp_path: Path) -> None:
    names = ["prompt", "completion", "completion"]
    if form == "csv":
        data = (",".join(names) + "\nA?,first,second\n").encode()
    else:
        out = pa.BufferOutputStream()
        columns = [pa.array([text]) for text in ("A?", "first", "second")]
        pq.write_table(pa.Table.from_arrays(columns, names=names), out)
        data = out.getvalue().to_pybytes()
    ledger = cleaned(tmp_path, f"dump.{form}", data)
    assert texts(tmp_path / "out") == [["A?", "first"]]
    assert ledger["ignored"] == {"completion (2)": 1}


def test_half_a_character_in_a_list_within_a_cell_is_counted(tmp_path: Path) -> None:
    said = json.dumps(TALK).replace("floats?", "floats \\ud83d?")
    cell = said.replace('"', '""')
    ledger = cleaned(tmp_path, "dump.csv", f'id,conversations\n1,"{cell}"\n'.encode())
    assert texts(tmp_path / "out") == [["What floats \ufffd?", "Cork, it's said."]]
    assert ledger["repairs"] == {"half_characters": 1}


@pytest.mark.parametrize("form", ["parquet", "json"])
def test_half_a_character_in_a_list_within_a_text_is_counted(form: str, tmp_path: Path) -> None:
    row = {"prompt": r"""[{'role': 'user', 'content': 'Hi \ud83d'}]""", "completion": "Yo"}
    row["completion"] = '[{"role": "assistant", "content": "Yo \\udc80"}]'
    out = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([row]), out)
    data = out.getvalue().to_pybytes() if form == "parquet" else json.dumps([row]).encode()
    ledger = cleaned(tmp_path, f"dump.{form}", data)
    assert texts(tmp_path / "out") == [["Hi \ufffd", "Yo \ufffd"]]
    assert ledger["repairs"] == {"half_characters": 2}


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_every_list_of_a_layout_may_be_a_cell(form: str, tmp_path: Path) -> None:
    said = [{"sender": "human", "text": "Hi"}, {"sender": "assistant", "text": "Yo"}]
    row = {"uuid": "u", "chat_messages": json.dumps(said)}
    out = pa.BufferOutputStream()
    if form == "csv":
        pa_csv.write_csv(pa.Table.from_pylist([row]), out)
    else:
        pq.write_table(pa.Table.from_pylist([row]), out)
    ledger = cleaned(tmp_path, f"dump.{form}", out.getvalue().to_pybytes())
    assert texts(tmp_path / "out") == [["Hi", "Yo"]]
    assert ledger["layouts"] == {"claude-export": 1}


def test_an_empty_list_in_a_cell_is_no_field_that_is_left_out(tmp_path: Path) -> None:
    ledger = cleaned(tmp_path, "dump.csv", b"prompt,completion,tools,meta,n\nA?,B.,[],{},1\n")
    assert ledger["ignored"] == {"n": 1}


_CELLS = [
    "plain",
    'say "hi", Bob',
    'ends in "x"',
    "C:\\dir\\",
    'a \\"b\\" c',
    "x,\ny",
    json.dumps(TALK),
]


def _spark(cell: str) -> str:
    """https://spark.apache.org/docs/latest/sql-data-sources-csv.html: escape, escapeQuotes."""
    doubled = re.sub(r'(\\+)("|\Z)', lambda run: 2 * run[1] + run[2], cell)
    return '"' + doubled.replace('"', '\\"') + '"'


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("tool", ["rfc", "rfc-all", "pandas", "pandas-all", "tsv", "spark"])
def test_quotes_are_read_as_the_tool_wrote_them(tool: str, end: str) -> None:
    rows = [["prompt", "completion"], *itertools.permutations(_CELLS, 2)]
    out = io.StringIO()
    if tool == "spark":
        out.write("".join(",".join(map(_spark, row)) + end for row in rows))
    else:
        csv.writer(
            out,
            delimiter="\t" if tool == "tsv" else ",",
            quoting=csv.QUOTE_ALL if tool.endswith("all") else csv.QUOTE_MINIMAL,
            doublequote=tool.startswith("rfc"),
            escapechar=None if tool.startswith("rfc") else "\\",
            lineterminator=end,
        ).writerows(rows)
    found = csv_rows.rows_of_csv([out.getvalue().encode()])
    assert [tuple(row.values()) for row in found if isinstance(row, dict)] == rows[1:]


def test_a_lone_backslash_after_the_first_lines_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those lines have backslashes before quotes alone, as either kind of tool writes them."""
    monkeypatch.setattr(csv_rows, "HEAD_BYTES", 64)
    text = "prompt,completion\n" + '"say \\"hi\\"","ok"\n' * 8
    text += '"\\frac{1}{2} is \\"half\\"",C:\\new\n'
    *_, last = csv_rows.rows_of_csv([text.encode()])
    assert last == {"prompt": '\\frac{1}{2} is "half"', "completion": "C:\\new"}


def test_a_rank_that_is_no_number_and_a_spreadsheets_first_line(tmp_path: Path) -> None:
    data = "sep=;\nprompt;completion;rank\nA?;B;\u00b2\n".encode()
    cleaned(tmp_path, "dump.csv", data)
    assert texts(tmp_path / "out") == [["A?", "B"]]


def test_text_that_only_looks_like_a_list_stays_text(tmp_path: Path) -> None:
    cleaned(tmp_path, "dump.csv", b'prompt,completion\n"[1, 2]","[2, 1]"\n')
    assert texts(tmp_path / "out") == [["[1, 2]", "[2, 1]"]]


def test_a_damaged_arrow_stream_keeps_what_comes_before(tmp_path: Path) -> None:
    out = pa.BufferOutputStream()
    table = pa.table({"prompt": ["Why?"] * 600, "completion": ["Because."] * 600})
    with pa.ipc.new_stream(out, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=200):
            writer.write_batch(batch)
    data = out.getvalue().to_pybytes()
    ledger = cleaned(tmp_path, "dump.arrow", data[: len(data) * 2 // 3])
    assert ledger["records"]["kept"] in (200, 400)
    assert ledger["records"]["quarantined"] == {"damaged-file": 1}


def test_csv_is_known_by_its_name() -> None:
    assert [
        name for name in ("a.csv", "b.TSV", "c.csv.gz", "d.json", "csv") if csv_rows.is_csv(name)
    ] == [
        "a.csv",
        "b.TSV",
        "c.csv.gz",
    ]


@pytest.mark.parametrize("head", ['"id, or name";prompt;completion', 'id;"prompt";"completion"'])
def test_a_separator_within_quotes_is_none(head: str, tmp_path: Path) -> None:
    cleaned(tmp_path, "dump.csv", f'{head}\n1;"A, b, c?";Yes.\n'.encode())
    assert texts(tmp_path / "out") == [["A, b, c?", "Yes."]]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_backslashes_that_are_doubled_beside_doubled_quotes_are_single(quoting: Any) -> None:
    """As pandas writes them with `escapechar`."""
    cells = ["C:\\dir", 'say "hi"', "\\frac{1}{2}\n\\\\", 'a \\"b\\"', "x\\", "\\\\host\\d"]
    rows = [["prompt", "completion"], *itertools.permutations(cells, 2)]
    out = io.StringIO()
    csv.writer(out, quoting=quoting, escapechar="\\").writerows(rows)
    found = csv_rows.rows_of_csv([out.getvalue().encode()])
    assert [tuple(row.values()) for row in found if isinstance(row, dict)] == rows[1:]


def test_doubled_backslashes_of_many_commands_are_single() -> None:
    row = ["\\theta is an angle", "\\neq\\frac{1}{2}"]
    text = "prompt,completion\n" + f"{','.join(row)}\n".replace("\\", "\\\\") * 16
    found = csv_rows.rows_of_csv([text.encode()])
    assert [list(one.values()) for one in found if isinstance(one, dict)] == [row] * 16


LATEX_IN_A_LIST = json.dumps([{"role": "user", "content": "\\frac{1}{2}, \\alpha"}])
BACKSLASHES = [
    *("\\\\ and \\frac", "a \\\\ b", "\\\\host\\d", LATEX_IN_A_LIST, "a \\\\ b \\\\ c"),
    's.split("\\\\s+") and t.split("\\\\s+")',
    'Pattern.compile("\\\\d+"), "\\\\d*"',
    'replace("\\\\\\\\", "/") and split("\\\\n")',
]


@pytest.mark.parametrize("cell", BACKSLASHES)
def test_backslashes_of_a_text_are_not_taken_for_doubled_ones(cell: str) -> None:
    rows = [("prompt", "completion"), ("Hi", cell), ("Ho", cell)]
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    found = csv_rows.rows_of_csv([out.getvalue().encode()])
    assert [tuple(row.values()) for row in found if isinstance(row, dict)] == rows[1:]
