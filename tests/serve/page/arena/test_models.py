"""What a visitor learns of a model from its lineage."""

from apps.serve.page.arena.models import _facts


def test_a_card_shows_what_spot_machines_saved_and_lost() -> None:
    cost = {"usd": 37.5, "usd_on_demand": 64.42, "lost_work_usd": 1.2, "lost_work_hours": 0.17}
    record = {"base_model": "/models/llama-7b", "usd": 37.5, "cost": cost}
    assert _facts(record) == [
        ("Base", "llama-7b"),
        ("Cost", "$37.50"),
        ("On demand", "$64.42"),
        ("Work lost", "$1.20"),
    ]
    assert _facts({"usd": 2.0, "cost": None}) == [("Cost", "$2.00")]
