"""Figures as plain JSON: what report.json holds, and the page's charts read."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from math import isnan
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

OMITTED = {"absent": "omit"}
"""Metadata of a field that report.json leaves out where it is None."""
MERGED = {"absent": "omit", "is_merged": True}
"""Metadata of a field whose own fields stand in its place."""


def to_json_object(value: "DataclassInstance") -> dict[str, object]:
    """`to_json` of one dataclass, with its fields OMITTED and MERGED as their metadata says."""
    record: dict[str, object] = {}
    for field in fields(value):
        figure = getattr(value, field.name)
        if figure is None and "absent" in field.metadata:
            continue
        if "is_merged" in field.metadata:
            record |= to_json_object(cast("DataclassInstance", figure))
        else:
            record[field.name] = to_json(figure)
    return record


def to_json(value: object) -> object:
    """Plain JSON of figures: fields by name, tuples as lists, NaN as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_json_object(value)
    if isinstance(value, Mapping):
        return {key: to_json(one) for key, one in cast(Mapping[str, object], value).items()}
    if isinstance(value, (tuple, list)):
        return [to_json(one) for one in cast(tuple[object, ...], value)]
    return None if isinstance(value, float) and isnan(value) else value
