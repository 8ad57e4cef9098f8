"""Types of what `json.loads` gives, for values whose shape is not known yet.

`isinstance` narrows them fully: a `dict` is a `JsonObject`, a `list` holds `JsonValue`s. What is
only written takes `dict[str, object]` instead, which any record fits.
"""

from typing import TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = dict[str, JsonValue]
