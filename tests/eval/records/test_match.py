"""References decide accuracy in every script."""

import pytest

from apps.eval.records.match import agrees, last_number


@pytest.mark.parametrize(
    ("match", "reference", "answer", "expected"),
    [
        ("exact", "Paris", " paris. ", True),
        ("exact", "Paris", "It is Paris", False),
        ("exact", "巴黎", "巴黎。", True),
        ("exact", "巴黎", "「巴黎」", True),
        ("exact", "باريس", "باريس؟", True),
        ("exact", "पेरिस", "पेरिस।", True),
        ("exact", "Paris", "Ｐａｒｉｓ！", True),
        ("exact", "Paris", "«Paris»", True),
        ("exact", "don't", "Don\u2019t", True),
        ("exact", "caf\u00e9", "cafe\u0301", True),
        ("exact", "C#", "C#.", True),
        ("exact", "C#", "C.", False),
        ("exact", "50%", "50 %", False),
        ("exact", "42", "٤٢", True),
        ("contains", "Paris", "It is Paris, of course.", True),
        ("contains", "par", "It is Paris", False),
        ("contains", ["C++", "Rust"][0], "I like C++ best", True),
        ("contains", "巴黎", "首都是巴黎。", True),
        ("contains", "パリ", "首都はパリです", True),
        ("contains", "ปารีส", "เมืองหลวงคือปารีส", True),
        ("contains", "파리", "수도는 파리입니다", True),
        ("contains", "Париж", "Это Париж!", True),
        ("contains", "Пар", "Это Париж!", False),
        ("contains", "दिल", "राजधानी दिल्ली है", False),
        ("contains", "दिल्ली", "राजधानी दिल्ली है।", True),
        ("contains", "1989", "im Jahr １９８９, sagt man", True),
        ("number", "1,024", "so 2^10 = 1024", True),
        ("number", "3.5", "about 3", False),
        ("number", "7", "none", False),
        ("number", "3.5", "etwa 3,5", True),
        ("number", "35", "etwa 3,5", False),
        ("number", "1234.56", "genau 1.234,56 €", True),
        ("number", "1234.56", "exactly 1,234.56", True),
        ("number", "1234", "1 234", True),
        ("number", "1234", "1\u202f234", True),
        ("number", "1234", "1'234", True),
        ("number", "1234567", "12,34,567", True),
        ("number", "1234567", "1.234.567", True),
        ("number", "1234", "1,234", True),
        ("number", "1.234", "1,234", True),
        ("number", "3.142", "3142", False),
        ("number", "42", "答案是４２。", True),
        ("number", "42", "الجواب ٤٢", True),
        ("number", "3.5", "٣٫٥", True),
        ("number", "-5", "\u22125", True),
        ("number", "-5", "= -5", True),
        ("number", "5", "-5", False),
        ("number", "3", "10-3", True),
        ("number", "1500", "1.5e3", True),
        ("number", "1500", "1.5 × 10^3", True),
        ("number", "1500", "1.5 * 10**3", True),
        ("number", "0.001", "10⁻³", True),
        ("number", "1.5e3", "1500", True),
        ("number", "0.75", "3/4", True),
        ("number", "3/4", "0.75", True),
        ("number", "0.5", ".5", True),
        ("number", "42", "The answer is 42.", True),
        ("number", "5", "It is H2O, 5 of them", True),
        ("number", "42", "In step 3 we get **42**.", True),
        ("number", "-5", "Answer: __-5__", True),
        ("number", "3", "It is 3, as x_1 says", True),
        ("number", "1024", "2**10", True),
        ("number", "2.5", "2 1/2", True),
        ("number", "2.5", "2½ cups", True),
        ("number", "0.5", "2½ cups", False),
        ("number", "-3.5", "-3 ½", True),
        ("number", "0.75", r"\boxed{\frac{3}{4}}", True),
        ("number", "2.5", r"$2\frac{1}{2}$", True),
        ("number", "1/2", r"$2\frac{1}{2}$", False),
        ("number", "1/2", "Of 2010 1/2", True),
        ("number", "1500", r"$1.5 \times 10^{3}$", True),
        ("number", "0.001", r"10^{-3}", True),
        ("number", "1234", "1{,}234", True),
        ("number", "5", "5 km²", True),
        ("number", "5", "5 m^2", True),
        ("number", "5", "5 m/s⁻²", True),
        ("number", "12", "12 m**2", True),
        ("number", "7", "7 mol L-1", True),
        ("number", "7", "7 s−1, says GPT-4", True),
        ("number", "11", "Apollo-11", True),
        ("number", "2", "It is **2**", True),
        ("number", "-5", "–5", True),
        ("number", "1995", "1990–1995", True),
        ("contains", "Paris", "答案是Paris。", True),
        ("contains", "42", "答案是42。", True),
        ("contains", "Paris", "답은 Paris입니다", True),
        ("contains", "Python", "ใช้Pythonเขียน", True),
        ("contains", "Python", "MyPythonで書く", False),
        ("exact", "باريس", "\u200fباريس\u200f", True),
        ("exact", "שלום", "\u2067שלום\u2069", True),
        ("exact", "Paris", "Pa\u00adris\u200b", True),
        ("exact", "istanbul", "\u0130stanbul", True),
    ],
)
def test_a_match_decides(match, reference: str, answer: str, expected: bool) -> None:
    assert agrees(match, answer, reference) is expected


@pytest.mark.parametrize(
    "text",
    ["250^150", "1/" + "3" * 400, "10^" + "9" * 5000, "x^" + "9" * 5000, "9" * 400, "1e999"],
)
def test_a_number_that_no_float_holds_agrees_with_nothing(text: str) -> None:
    for reference in ("42", "0", "1e300"):
        assert agrees("number", f"The space has {text}", reference) is False


@pytest.mark.parametrize("text", ["1/0", "9" * 400, "9^999999999", "1e999999", "^", "--", "1,,2"])
def test_odd_numbers_end_in_a_value_or_none(text: str) -> None:
    assert all(isinstance(value, float) for value in last_number(text))
