"""Numbers by which a state knows a person: a form for each country, and its check digits.

A form that many other numbers have counts where a word before it says what it is: PESEL, BSN, ИНН.
"""

import re
from collections.abc import Callable

Check = Callable[[str], bool]
"""check(number): of its capitals and digits alone"""


def _is_month_and_day(digits: str) -> bool:
    return 1 <= int(digits[:2]) <= 12 and 1 <= int(digits[2:]) <= 31


def _weighted(number: str, weights: range) -> int:
    return sum(int(d) * w for d, w in zip(number, weights, strict=False))


def _is_chinese(number: str) -> bool:
    """GB 11643-1999: a birth date in the middle, ISO 7064 MOD 11-2 at the end."""
    if number[6:8] not in ("18", "19", "20") or not _is_month_and_day(number[10:14]):
        return False
    total = sum(int(digit) * pow(2, 17 - i, 11) for i, digit in enumerate(number[:17]))
    return number[17] == "10X98765432"[total % 11]


def _is_spanish(number: str) -> bool:
    """The letter is the number modulo 23 (Orden INT/2058/2008); X, Y and Z stand for 0, 1, 2."""
    digits = number[:-1].translate(str.maketrans("XYZ", "012"))
    return len(digits) == 8 and number[-1] == "TRWAGMYFPDXBNJZSQVHLCKE"[int(digits) % 23]


def _is_cpf(number: str) -> bool:
    """Two check digits modulo 11 (Receita Federal)."""
    for size in (9, 10):
        if _weighted(number[:size], range(size + 1, 1, -1)) * 10 % 11 % 10 != int(number[size]):
            return False
    return len(set(number)) > 1


def _is_korean(number: str) -> bool:
    return _is_month_and_day(number[2:6])


def _is_british(number: str) -> bool:
    """Prefixes that were never given out (HMRC, NIM39110)."""
    return number[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


def _is_french(number: str) -> bool:
    """The key is 97 less the number modulo 97 (INSEE)."""
    return len(number) == 15 and 97 - int(number[:13]) % 97 == int(number[13:])


def _is_aadhaar(number: str) -> bool:
    """Verhoeff's check: products of permuted digits in the dihedral group of order 10 end at 0."""
    product = 0
    for place, digit in enumerate(reversed(number)):
        value = int(digit)
        for _ in range(place % 8):
            value = _PERMUTED[value]
        product = _in_dihedral_group(product, value)
    return product == 0


def _in_dihedral_group(first: int, second: int) -> int:
    """0-4 are turns of a pentagon and 5-9 turns after a reflection: 2 x 4 is 1, 5 x 1 is 9."""
    turn = (first + (second if first < 5 else -second)) % 5
    return turn + 5 * ((first < 5) != (second < 5))


_PERMUTED = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def _is_taiwanese(number: str) -> bool:
    """The letter is a number of two digits; all digits, weighted, end with the last one at 0."""
    place = "ABCDEFGHJKLMNPQRSTUVXYWZIO".index(number[0]) + 10
    total = place // 10 + place % 10 * 9 + _weighted(number[1:9], range(8, 0, -1))
    return (total + int(number[9])) % 10 == 0


def _is_of_hong_kong(number: str) -> bool:
    """Letters are 10 to 35, a missing first one 36, the last digit A is 10; modulo 11."""
    values = [int(char, 36) for char in number]
    values = values if len(values) == 9 else [36, *values]
    return sum(v * w for v, w in zip(values, range(9, 0, -1), strict=True)) % 11 == 0


def _is_singaporean(number: str) -> bool:
    """The letter at the end, of those who were born or came before (S, F) and after 2000 (T, G)."""
    total = int(number[1]) * 2 + _weighted(number[2:8], range(7, 1, -1)) + 4 * (number[0] in "TG")
    letters = "JZIHGFEDCBA" if number[0] in "ST" else "XWUTRQPNMLK"
    return number[8] == letters[total % 11]


def _is_snils(number: str) -> bool:
    """The last two digits are the weighted sum of the others modulo 101."""
    return _weighted(number[:9], range(9, 0, -1)) % 101 % 100 == int(number[9:])


def _is_chilean(number: str) -> bool:
    """Modulo 11 of the digits from the right, weighted by 2 to 7 again and again."""
    total = sum(int(d) * (2 + i % 6) for i, d in enumerate(reversed(number[:-1])))
    return number[-1] == "0K987654321"[total % 11]


def _is_any(number: str) -> bool:
    del number
    return True


_FORMS: tuple[tuple[str, Check], ...] = (
    (r"[1-9][0-9]{16}[0-9Xx]", _is_chinese),
    (r"[XYZ]?[0-9]{7,8}-?[A-HJ-NP-TV-Z]", _is_spanish),  # DNI and NIE
    (r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", _is_cpf),
    (r"[0-9]{6}-[1-8][0-9]{6}", _is_korean),
    (r"[A-Z]{6}[0-9]{2}[A-EHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z]", _is_any),  # codice fiscale
    (r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]", _is_british),
    (r"[12] ?[0-9]{2} ?(?:0[1-9]|1[0-2]) ?[0-9]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}", _is_french),
    (r"[2-9][0-9]{3} [0-9]{4} [0-9]{4}", _is_aadhaar),
    (r"[A-Z][12][0-9]{8}", _is_taiwanese),
    (r"[A-Z]{1,2}[0-9]{6}\([0-9A]\)", _is_of_hong_kong),
    (r"[STFG][0-9]{7}[A-Z]", _is_singaporean),
    (r"[A-Z]{4}[0-9]{6}[HM][A-Z]{5}[A-Z0-9][0-9]", _is_any),  # CURP of Mexico
    (r"[0-9]{3}-[0-9]{3}-[0-9]{3} [0-9]{2}", _is_snils),
    (r"[0-9]{1,2}\.[0-9]{3}\.[0-9]{3}-[0-9Kk]", _is_chilean),  # RUT
)
_CALLED = (
    r"(?:(?i:\b(?:pesel|bsn|sofinummer|steuer-?id(?:entifikationsnummer)?|idnr|t\.?c\.? ?kimlik|cpf"
    r"|kimlik no|cccd|cmnd|snils|personnummer|aadhaar|passport|pasaporte|reisepass)\b)"
    r"|\b(?:NIK|KTP)\b|căn cước|паспорт|ИНН|СНИЛС|マイナンバー|個人番号|パスポート(?:番号)?"
    r"|护照号?码?|護照號?碼?|身份证号?码?|身分證字?號?碼?|주민등록번호|여권번호|บัตรประชาชน|דרכון)"
    r"(?:[ .:#\-]|\x{FF1A}|是|は|(?i:no|nr|number|num|номер|is)\b){0,6}"
    r"([A-Z]{0,2}[0-9]{2,4}(?:[ \-]?[0-9]{2,6}){1,4})\b"
)
_MORE_DIGITS = re.compile(r" ?\d")
_MIN_DIGITS = 7
_DATES = re.compile(
    r"(?:19|20)\d\d[ -](?:19|20)\d\d|\d\d[ -]\d\d[ -](?:19|20)\d\d|(?:19|20)\d\d-\d\d-\d\d"
)
IDENTITY = "|".join([*(rf"\b{form}" + r"\b" * (form[-1] != ")") for form, _ in _FORMS), _CALLED])
"""For RE2."""


def is_identity(text: str, start: int, end: int) -> bool:
    """Whether text[start:end], which has the pattern, is one."""
    number = text[start:end]
    compact = re.sub(r"[ .()-]", "", number).upper()
    check = next((check for form, check in _FORMS if re.fullmatch(form, number)), None)
    if check is None:  # a word before it says what it is
        is_date = _DATES.fullmatch(number) is not None
        return not is_date and sum(map(str.isdigit, compact)) >= _MIN_DIGITS
    if check is _is_aadhaar and _MORE_DIGITS.match(text, end) is not None:
        return False
    return check(compact)
