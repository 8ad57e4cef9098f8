"""What `nodes` finds by walking is what selectors find, in any markup."""

from hypothesis import given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from apps.data.html.nodes import every, first

TAGS = ("table", "tr", "td", "code", "br", "pre", "div", "template", "svg", "select")
PIECES = [*(f"<{tag}>" for tag in TAGS), *(f"</{tag}>" for tag in TAGS), "a", "<!-- <br> -->"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30))
def test_walking_finds_what_selectors_find(pieces: list[str]) -> None:
    body = LexborHTMLParser("<body>" + "".join(pieces), options=1).body
    assert body is not None
    for tag in TAGS:
        assert [n.mem_id for n in every(body, tag)] == [n.mem_id for n in body.css(tag)]
    by_walking, by_selector = first(body, "br", "td"), body.css_first("br,td")
    assert (by_walking and by_walking.mem_id) == (by_selector and by_selector.mem_id)
