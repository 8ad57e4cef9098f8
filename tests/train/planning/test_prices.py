"""What a GPU-hour costs in a plan: the dated table, one's own, and prices that are none."""

from dataclasses import replace

import pytest
import yaml

from apps.common.errors import ConfigError
from apps.train.plan import make_plan, presets
from apps.train.planning import prices

VICUNA_7B = presets()["vicuna-7b"]()


def test_own_price_table_replaces_the_repositorys(tmp_path):
    table = tmp_path / "mine.yaml"
    table.write_text(yaml.safe_dump({"usd_per_gpu_hour": {"H200": {"lab": {"usd": 1.0}}}}))
    recipe = replace(VICUNA_7B, gpus="8xH200", price="lab", prices=str(table))
    price = make_plan(recipe).machines.price
    assert (price.usd_per_gpu_hour, price.source) == (1.0, str(table))
    with pytest.raises(ConfigError, match="lab"):
        make_plan(replace(recipe, price="spot"))


def test_every_price_of_the_table_is_dated_and_sourced():
    table = yaml.safe_load(prices.TABLE.read_text())
    assert table["updated"]
    for columns in table["usd_per_gpu_hour"].values():
        for entry in columns.values():
            assert entry["usd"] > 0 and entry["seen"] and entry["source"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"H200": 1.0}, "no mapping usd_per_gpu_hour"),
        ({"H200": {"lab": 1.0}}, "lab of H200 in .* is 1.0; expected {usd: 1.10}"),
        ({"H200": {"lab": {"usd": "one"}}}, "is {'usd': 'one'}; expected"),
        ({"H200": {"lab": {"seen": "today"}}}, "is {'seen': 'today'}; expected"),
    ],
)
def test_a_table_that_cannot_be_read_is_a_sentence(tmp_path, rows, said):
    table = tmp_path / "mine.yaml"
    table.write_text(yaml.safe_dump({"usd_per_gpu_hour": rows}))
    with pytest.raises(ConfigError, match=said):
        make_plan(replace(VICUNA_7B, gpus="8xH200", price="lab", prices=str(table)))


@pytest.mark.parametrize("price", ["0", "-1", "cheap", "nan", "inf"])
def test_a_price_that_is_none_is_refused(price):
    with pytest.raises(ConfigError, match="--price"):
        make_plan(replace(VICUNA_7B, price=price))


def test_a_misspelt_price_is_not_free_on_cpus():
    with pytest.raises(ConfigError, match="no 'spto' price"):
        make_plan(replace(VICUNA_7B, gpus="2xCPU-4GB", price="spto"))
