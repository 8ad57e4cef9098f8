from pathlib import Path

from apps.serve.page.votes import VoteStore, new_battle_id


def test_a_battle_takes_one_vote(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/votes.db"
    store = VoteStore(url)
    battle = new_battle_id()
    talk = [{"role": "user", "content": "'); DROP TABLE votes; --\n"}]
    fields = {"session": "s", "blind": True, "settings": {"temperature": 0.0}}
    common = {"models": ("a", "b"), "conversations": (talk, talk), **fields}
    assert store.add(battle_id=battle, verdict="left", **common)
    assert not store.add(battle_id=battle, verdict="right", **common)
    assert store.add(battle_id=new_battle_id(), verdict="both_bad", **common)
    store.close()
    again = VoteStore(url)
    kept = again.all()
    again.close()
    assert [vote.verdict for vote in kept] == ["left", "both_bad"]
    assert (kept[0].left_model, kept[0].left, kept[0].blind) == ("a", talk, True)
