import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.common.files.json_floats import from_json, to_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "nan", "loss"]),
    lambda held: st.lists(held) | st.dictionaries(st.text(), held),
)


@given(VALUES)
def test_what_strict_json_holds_is_read_back(value) -> None:
    text = json.dumps(to_json(value), allow_nan=False)
    assert repr(from_json(json.loads(text))) == repr(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_float_reads_the_words(value) -> None:
    assert repr(float(to_json(value))) == repr(value)
