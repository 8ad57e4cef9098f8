"""Lists that begin again at 1 are numbered on; lists that are two stay two."""

import pytest

from apps.data.rules.numbered_lists import renumbered, restart

CODE = "```sh\n1. not an item\nmake\n```"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Do:\n1. a\n1. b\n1. c", "Do:\n1. a\n2. b\n3. c"),
        (f"Do:\n1. a\n{CODE}\n1. b\n2. c", f"Do:\n1. a\n{CODE}\n2. b\n3. c"),
        (f"Do:\n1) a\n\n{CODE}\n\n1) b", f"Do:\n1) a\n\n{CODE}\n\n2) b"),
        (
            f"Do:\n1. a\n````md\n{CODE}\n1. x\n````\n1. b",
            f"Do:\n1. a\n````md\n{CODE}\n1. x\n````\n2. b",
        ),
        ("Do:\n1. a\n   more of a\n1. b", "Do:\n1. a\n   more of a\n2. b"),
    ],
)
def test_a_restarted_list_is_numbered_on(text: str, expected: str) -> None:
    assert restart(text)
    assert renumbered(text) == expected
    assert not restart(expected) and renumbered(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Two lists:\n1. a\n2. b\n\nAnd the other:\n1. c\n2. d",
        "Two lists:\n1. a\n\nThe other:\n1. c",
        "Nested:\n1. a\n   1. b\n   2. c\n2. d",
        "No list at all. 1. This.",
        "```\n1. a\n1. b\n```",
        "~~~\n1. a\n~~~ no end\n1. b\n```\n1. c\n~~~~",
        "```\n1. a\n```py\n1. b\n```",
        "Version 1. 2\n1. a\n2. b\n3. c",
    ],
)
def test_other_lists_stay(text: str) -> None:
    assert not restart(text) and renumbered(text) == text
