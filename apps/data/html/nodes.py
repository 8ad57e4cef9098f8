"""What is asked of Lexbor's nodes without its selectors: those cost 3 us a page before they search.

As with selectors, a node is among what is below it.
"""

from selectolax.lexbor import LexborNode


def first(node: LexborNode, *tags: str) -> LexborNode | None:
    """The first element with one of the tags, in the order of the page."""
    for part in node.traverse():
        if part.tag in tags:
            return part
    return None


def every(node: LexborNode, *tags: str) -> list[LexborNode]:
    return [part for part in node.traverse() if part.tag in tags]
