"""Amounts as a person reads them, in the unit that fits."""

_DECIMAL = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def size(num_bytes: float) -> str:
    """`156.2 GB`, `41.1 MB`, `512 B`; decimal units, as disks are sold."""
    for unit, prefix in _DECIMAL:
        if num_bytes >= unit:
            return f"{num_bytes / unit:,.1f} {prefix}B"
    return f"{num_bytes:.0f} B"


def count(value: float) -> str:
    """`6.74 G`, `207.20 M`, `68`."""
    for unit, prefix in _DECIMAL[1:]:
        if value >= unit:
            return f"{value / unit:,.2f} {prefix}"
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """`5.8 s`, `4.1 min`, `9.8 h`."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
