"""What to look at first in a cleaned dump: one paragraph, the largest surprises before the rest.

Each sentence has a threshold from which it is said, and names the command that shows more.
"""

from collections.abc import Iterator, Mapping

from apps.data.report_content import Report, Totals

_LARGE_SHARE = 0.1
"""Of all conversations, what one rule takes before it is worth a look."""
_UNREAD_SHARE = 0.01
_TRIMMED_SHARE = 0.05
_UNKNOWN_LANGUAGE_SHARE = 0.1
_POOR_QUALITY = 0.5
_POOR_SHARE = 0.05


def advice(report: Report) -> str:
    """Never empty: a dump without surprises is told so."""
    said = list(_sentences(report))
    return " ".join(said or ["Nothing stands out: read a few of the samples below and go on."])


def _sentences(report: Report) -> Iterator[str]:
    totals, ledger = report["totals"], report["ledger"]
    yield from _unread(totals, ledger["records"]["quarantined"])
    yield from _dropped(totals, ledger["records"]["dropped"], report["folder"])
    messages = ledger["messages"]
    trimmed = sum(messages["trimmed"].values())
    if trimmed > _TRIMMED_SHARE * max(1, messages["input"]):
        rule = _largest(messages["trimmed"])
        yield (
            f"{_percent(trimmed, messages['input'])} of all messages were taken off conversations "
            f"that stay, most by the rule {rule}."
        )
    yield from _languages(dict(report["languages"]), totals["kept"])
    quality = report["quality"]
    poor = sum(count for label, count in quality if float(label.split("-")[0]) < _POOR_QUALITY)
    if poor > _POOR_SHARE * max(1, totals["kept"]):
        yield (
            f"{_percent(poor, totals['kept'])} of what is kept has a quality score under "
            f"{_POOR_QUALITY}: the lowest are among the samples, and --rules.min-quality drops "
            "them."
        )


def _unread(totals: Totals, reasons: Mapping[str, int]) -> Iterator[str]:
    if totals["quarantined"] > _UNREAD_SHARE * max(1, totals["records"]):
        yield (
            f"{_percent(totals['quarantined'], totals['records'])} of the records could not be "
            f"read, most for the reason {_largest(reasons)}: their bytes lie in quarantine/."
        )


def _dropped(totals: Totals, rules: Mapping[str, int], folder: str) -> Iterator[str]:
    for rule, count in sorted(rules.items(), key=lambda item: -item[1])[:2]:
        if count > _LARGE_SHARE * max(1, totals["records"]):
            yield (
                f"The rule {rule} dropped {_percent(count, totals['records'])} of all "
                f"conversations: look whether it was right with "
                f"`python -m apps.data view {folder} --rule {rule}`."
            )


def _languages(languages: Mapping[str, int], kept: int) -> Iterator[str]:
    unknown = languages.get("unknown", 0)
    if unknown > _UNKNOWN_LANGUAGE_SHARE * max(1, kept) and len(languages) > 1:
        yield f"{_percent(unknown, kept)} of what is kept has too little prose to tell a language."


def _largest(counts: Mapping[str, int]) -> str:
    return max(counts, key=lambda name: (counts[name], name))


def _percent(count: int, total: int) -> str:
    return f"{100 * count / max(1, total):.1f} %"
