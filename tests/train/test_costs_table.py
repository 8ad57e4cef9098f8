"""The documents' table of dollars is what its command prints."""

from pathlib import Path

from benchmarks.costs import table


def test_the_table_in_the_documents_is_printed_by_its_command() -> None:
    document = (Path(__file__).resolve().parents[2] / "docs" / "costs.md").read_text()
    for line in table():
        assert line in document, f"run `python -m benchmarks.costs`; docs/costs.md lacks {line}"
