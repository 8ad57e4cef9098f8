from pathlib import Path

import pytest

from apps.serve.config import PageConfig
from apps.serve.page.client import ChatClient
from apps.serve.page.mount import build_blocks
from apps.serve.page.votes import VoteStore


@pytest.mark.parametrize("tab", ["chat", "compare"])
async def test_the_page_opens_on_the_tab_it_is_told_and_shows_the_examples(
    tmp_path: Path, tab: str
) -> None:
    page = PageConfig(examples=("How long does it last?",), opens_on=tab)
    votes = VoteStore(f"sqlite:///{tmp_path}/votes.db")
    blocks = build_blocks(page, ChatClient("http://127.0.0.1:9", ""), votes)
    votes.close()
    parts = blocks.get_config_file()["components"]
    (tabs,) = [part for part in parts if part["type"] == "tabs"]
    assert tabs["props"]["selected"] == tab
    (offered,) = [part for part in parts if part["type"] == "dataset"]
    assert offered["props"]["samples"] == [["How long does it last?"]]
