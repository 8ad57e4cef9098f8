"""Needless backslashes of converters go; on a labelled set none of an author's does."""

import random

import pytest

from apps.data.rules.escapes import undone

WORDS = (
    *("file", "name", "value", "index", "table", "river"),
    *("bread", "light", "house", "stone", "paper", "cloud"),
)


def name(draw: random.Random) -> str:
    return "_".join(draw.choices(WORDS, k=draw.randint(2, 4)))


def sentence(draw: random.Random) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(3, 9)))


def converted(draw: random.Random) -> tuple[str, str]:
    """What a converter wrote, and the text that it was made of."""
    texts = [f"The {name(draw)} of {sentence(draw)} is {name(draw)}."]
    if draw.random() < 0.5:
        texts.append(f"So {draw.randint(2, 9)} * {draw.randint(2, 9)} times the {name(draw)}.")
    plain = "\n\n".join(texts)
    shown = plain.replace("_", "\\_").replace("*", "\\*")
    kind = draw.randrange(4)
    if kind == 1:
        bold = f"**{sentence(draw)}** "
        return bold + shown, bold + plain
    if kind == 2:
        code = f"\n\n```python\n{name(draw)} = r'\\_{name(draw)}'\n```\n\nAnd `{name(draw)}`."
        return shown + code, plain + code
    if kind == 3:
        tex = f" And $a\\_{draw.randint(1, 9)}$ as \\(b\\_1\\)."
        return shown + tex, plain + tex
    return shown, plain


def legitimate(draw: random.Random) -> str:
    word = draw.choice(WORDS)
    return draw.choice(
        [
            f"Write \\*{word}\\* to see the stars.",
            f"Look in C:\\_{word} and D:\\{word}\\my_{word}.",
            f"The path is C:\\{word}\\_{word}\\{name(draw)}.",
            f"In TeX it is $x\\_{word}$ and \\[ \\text{{{word}\\_1}} \\].",
            f"The pattern `\\d\\_\\*` matches {name(draw)}.",
            f"```\n{word}\\_{word} \\* 3\n```",
            f"Use \\_{word}\\_ where {name(draw)} stands.",
            f"It is \\# and not a heading, said {name(draw)}.",
            f"A regular expression \\d+\\_\\w+ matches {word}.",
            f"Mix {word}\\_{word} and {name(draw)}.",
            f"Line one \\\\ line two of {word}\\_{word}.",
            f"\\_\\_{word}\\_\\_ is special",
            f"1\\. {sentence(draw)}",
            f"Write {draw.randint(2, 99)}\\% of my\\_{word} \\& more in TeX.",
            f"Find it with LIKE 'my\\_{word}\\%' or [a-z]\\{{2\\}}x\\_{word}.",
            f"* {sentence(draw)}\n* \\*{word}\\* {sentence(draw)}",
        ]
    )


@pytest.mark.parametrize("num_cases", [1500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_on_a_labelled_set_every_converters_backslash_goes_and_no_other(num_cases: int) -> None:
    draw = random.Random(23)
    changed = [
        text for text in (legitimate(draw) for _ in range(num_cases)) if undone(text) != text
    ]
    assert changed == []
    pairs = [converted(draw) for _ in range(num_cases // 3)]
    assert [(undone(shown), plain) for shown, plain in pairs if undone(shown) != plain] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("my\\_long\\_name", "my_long_name"),
        ("2 \\* 3 is 6", "2 * 3 is 6"),
        ("my\\_name \\*and\\* that", "my_name \\*and\\* that"),  # without them it would be italic
        ("my\\_name \\<b\\> here", "my_name \\<b\\> here"),  # nor half a tag
        ("my\\_name: 5 \\> 3", "my_name: 5 > 3"),
        ("", ""),
        ("no backslash", "no backslash"),
    ],
)
def test_a_backslash_goes_where_the_text_renders_the_same(text: str, expected: str) -> None:
    assert undone(text) == expected
