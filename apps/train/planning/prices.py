"""What an accelerator costs per hour: the dated table `prices.yaml`, or the user's own."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from apps.common.errors import ConfigError
from apps.common.files import config as configs

TABLE = Path(__file__).with_name("prices.yaml")
Table = Mapping[str, object]
"""a YAML mapping that is not checked yet"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """One price and where it comes from."""

    name: str
    """`spot`, `on-demand`, another column of the table, `stated`, or `own`."""
    usd_per_gpu_hour: float
    """US dollars per accelerator and hour."""
    source: str
    """Who says so, and when."""

    @property
    def preemptible(self) -> bool:
        """Whether the machine can be taken away: neither on demand nor one's own."""
        return self.name not in ("on-demand", "own")


def find(
    price: str, accelerator: str, table_uri: str | None = None, option: str = "--price"
) -> Price | None:
    """The price called `price` of one accelerator; a number is taken as it is.

    `option` is where it was given. None: the table has such a column, but not for this
    accelerator. ConfigError names the columns that the table does have.
    """
    if stated := _number(price, option):
        return Price(name="stated", usd_per_gpu_hour=stated, source=f"stated with {option}")
    table_uri = table_uri or str(TABLE)
    table = configs.load_yaml(table_uri)
    columns = _columns(table, table_uri, accelerator)
    if price in ("spot", "own") and price not in columns and accelerator == "CPU":
        source = "a machine of yours; give --price for a rented one"
        return Price(name="own", usd_per_gpu_hour=0.0, source=source)
    if price not in columns:
        have = sorted({name for row in _rows(table) for name in row})
        if price in have:
            return None
        raise ConfigError(
            f"{table_uri} has no {price!r} price (it has {', '.join(have) or 'none at all'}); "
            f"give {option} USD_PER_GPU_HOUR or your own table with --prices FILE"
        )
    usd = _usd(columns[price], f"{price} of {accelerator} in {table_uri}")
    entry = _mapping(columns[price]) or {}
    source, seen = entry.get("source", table_uri), entry.get("seen", table.get("updated"))
    where = f"{source}, seen {seen}" if seen else str(source)
    return Price(name=price, usd_per_gpu_hour=usd, source=where)


def _columns(table: Table, table_uri: str, accelerator: str) -> Table:
    rows = _mapping(table.get("usd_per_gpu_hour"))
    columns = None if rows is None else _mapping(rows.get(accelerator, {}))
    if columns is None:
        raise ConfigError(
            f"{table_uri} has no mapping usd_per_gpu_hour; expected accelerator -> price name "
            f"-> {{usd, seen, source}} as in {TABLE.name}"
        )
    return columns


def _rows(table: Table) -> list[Table]:
    rows = (_mapping(row) for row in (_mapping(table["usd_per_gpu_hour"]) or {}).values())
    return [row for row in rows if row is not None]


def _mapping(value: object) -> Table | None:
    return cast(Table, value) if isinstance(value, Mapping) else None


def _usd(entry: object, where: str) -> float:
    """US dollars of one price of a table."""
    usd = (_mapping(entry) or {}).get("usd")
    if not isinstance(usd, int | float) or not 0 <= usd < math.inf:
        raise ConfigError(
            f"The price {where} is {entry!r}; expected {{usd: 1.10}}, US dollars per GPU and hour, "
            f"as in {TABLE.name}"
        )
    return float(usd)


def _number(text: str, option: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    if not 0 < value < math.inf:
        raise ConfigError(f"{option} {text} is not positive; give US dollars per GPU and hour")
    return value
