"""Words are the same whatever the script, the form of its characters and the blanks around it."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.common.text import words as module
from apps.common.text.words import jaccard, num_words, word_spans, words

TEXTS = {
    "English": ("Don't bake it at 230°C!", ["don", "t", "bake", "it", "at", "230", "c"]),
    "code": ("foo_bar(x1) == 3;", ["foo_bar", "x1", "3"]),
    "German": ("Öfen, Straße", ["öfen", "strasse"]),
    "Chinese": ("烤三十分钟。", ["烤三", "三十", "十分", "分钟"]),
    "one character": ("猫", ["猫"]),
    "mixed": ("用GPT-4烤面包", ["用", "gpt", "4", "烤面", "面包"]),
    "Japanese": ("パンを", ["パン", "ンを"]),
    "Thai": ("น้ำดี", ["น้ำดี"]),
    "Thai, longer": ("ขนมปัง", ["ขนม", "นมปั", "มปัง"]),
    "Korean": ("빵을 굽다", ["빵을", "굽다"]),
    "Hindi": ("हिन्दी में", ["हिन्दी", "में"]),
    "Arabic": ("خبز، ماء", ["خبز", "ماء"]),
    "Persian": ("می\u200cخواهم", ["میخواهم"]),
    "nothing": ("... -- !\n", []),
}


@pytest.mark.parametrize("name", TEXTS)
def test_every_script_has_words(name: str) -> None:
    text, expected = TEXTS[name]
    assert words(text) == [unicodedata.normalize("NFC", word) for word in expected]


def test_a_reader_counts_the_words_of_scripts_without_blanks_too() -> None:
    counts = {"烤三十分钟": 3, "I like 面包": 3, "ขนมปัง": 2, "two words": 2, "": 0, "…": 0}
    assert {text: num_words(text) for text in counts} == counts


def test_one_changed_character_leaves_most_of_a_chinese_text_alike() -> None:
    text = "首先准备面粉清水盐和天然酵母把它们混合在一起每隔半个小时折叠一次面团"
    assert jaccard(words(text), words(text.replace("盐", "糖"))) > 0.85
    assert jaccard(words(text), words("今天的天气非常好我们一起去公园散步吧")) < 0.05
    assert jaccard([], []) == 0


ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs"])
    | st.sampled_from("aé ,\u0301\u200b烤三パンขนมน้ำहिन्दी빵ﬁ²İß"),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(ANY_TEXT, ANY_TEXT)
def test_texts_side_by_side_have_the_words_of_both(first: str, second: str) -> None:
    assert words(f"{first} | {second}") == words(first) + words(second)


@settings(max_examples=300, deadline=None)
@given(ANY_TEXT)
def test_the_form_of_characters_and_their_case_do_not_count(text: str) -> None:
    assert words(unicodedata.normalize("NFD", text)) == words(unicodedata.normalize("NFC", text))
    assert num_words(text) <= max(len(words(text)), len(text))


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_the_short_way_for_ascii_gives_what_the_long_one_does(text: str) -> None:
    assert words(text) == module._runs().findall(text.casefold())


@settings(max_examples=300, deadline=None)
@given(ANY_TEXT)
def test_word_spans_are_the_words_and_lead_back_to_them(text: str) -> None:
    text = unicodedata.normalize("NFC", text)
    spans = word_spans(text)
    assert [span.word for span in spans] == words(text)
    for span in spans:
        assert 0 <= span.start < span.end <= len(text)
        assert span.word in words(text[span.start : span.end])


def test_a_span_is_where_a_reader_would_point() -> None:
    text = "Straße:\u200b 烤三十, น้ำ"
    assert [(span.word, text[span.start : span.end]) for span in word_spans(text)] == [
        ("strasse", "Straße"),
        ("烤三", "烤三"),
        ("三十", "三十"),
        (unicodedata.normalize("NFC", "น้ำ"), "น้ำ"),
    ]
