"""Numbers by which a state knows a person: a form for each country, and its check digits.

A form that many other numbers have counts where a word before it says what it is: PESEL, BSN, ИНН.
"""

import re
from collections.abc import Callable

from apps.data.rules.personal import identity_checks

Check = Callable[[str], bool]
"""check(number): of its capitals and digits alone"""


def _is_any(number: str) -> bool:
    del number
    return True


_FORMS: tuple[tuple[str, Check], ...] = (
    (r"[1-9][0-9]{16}[0-9Xx]", identity_checks.is_chinese),
    (r"[XYZ]?[0-9]{7,8}-?[A-HJ-NP-TV-Z]", identity_checks.is_spanish),  # DNI and NIE
    (r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", identity_checks.is_cpf),
    (r"[0-9]{6}-[1-8][0-9]{6}", identity_checks.is_korean),
    (r"[A-Z]{6}[0-9]{2}[A-EHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z]", _is_any),  # codice fiscale
    (
        r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]",
        identity_checks.is_british,
    ),
    (
        r"[12] ?[0-9]{2} ?(?:0[1-9]|1[0-2]) ?[0-9]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}",
        identity_checks.is_french,
    ),
    (r"[2-9][0-9]{3} [0-9]{4} [0-9]{4}", identity_checks.is_aadhaar),
    (r"[A-Z][12][0-9]{8}", identity_checks.is_taiwanese),
    (r"[A-Z]{1,2}[0-9]{6}\([0-9A]\)", identity_checks.is_of_hong_kong),
    (r"[STFG][0-9]{7}[A-Z]", identity_checks.is_singaporean),
    (r"[A-Z]{4}[0-9]{6}[HM][A-Z]{5}[A-Z0-9][0-9]", _is_any),  # CURP of Mexico
    (r"[0-9]{3}-[0-9]{3}-[0-9]{3} [0-9]{2}", identity_checks.is_snils),
    (r"[0-9]{1,2}\.[0-9]{3}\.[0-9]{3}-[0-9Kk]", identity_checks.is_chilean),  # RUT
    (r"[A-Z]{3}P[A-Z][0-9]{4}[A-Z]", _is_any),  # PAN of a person in India
)
MARK = r"[ \t.:=#*()\[\]\"'\-\x{A0}\x{202F}\x{3000}\x{FF1A}]"
"""What may stand between a number and the word that says what it is."""
_CALLED = (
    r"(?:(?i:\b(?:pesel|bsn|sofinummer|steuer-?id(?:entifikationsnummer)?|idnr|t\.?c\.? ?kimlik|cpf"
    r"|kimlik no|cccd|cmnd|snils|personnummer|aadhaar|passport|pasaporte|reisepass|nhs|pps(?:n| no)"
    r"|social insurance|assurance sociale|tax file|medicare|national insurance|national id"
    r"|f[øo]dselsnummer|rodn[ée] [čc][íi]slo|pan(?: card)?)\b)"
    r"|\b(?:NIK|KTP|SIN|NAS|CNP|CPR|NIF|PAN)\b|(?i:căn cước|паспорт|ЕГН)|ИНН|СНИЛС|ИИН|ІПН"
    r"|マイナンバー|個人番号|パスポート(?:番号)?|护照号?码?|護照號?碼?|身份证号?码?|身分證字?號?碼?"
    r"|주민등록번호|여권번호|บัตรประชาชน|דרכון|תעודת זהות"
    r"|کد ملی|الرقم القومي|رقم الهوية|الهوية الوطنية)"
    rf"(?:{MARK}|\b(?:SIN|NAS|TFN)\b|是|は|เลขที่|(?i:\b(?:no|nr|n[úu]mero|num|number|card|is|est)\b)"
    r"|(?i:номер)){0,8}"
    r"([A-Z]{0,2}[0-9]{2,4}(?:[ \-]?[0-9]{2,6}){1,4}(?: [0-9])?[A-Z]{0,2}"
    r"|(?i:[A-Z]{5}[0-9]{4}[A-Z]))\b"
)
_MORE_DIGITS = re.compile(r" ?\d")
_MIN_DIGITS = 7
_DATES = re.compile(
    r"(?:19|20)\d\d[ -](?:19|20)\d\d"
    r"|(?:\d\d[ -]\d\d[ -](?:19|20)\d\d|(?:19|20)\d\d-\d\d-\d\d)(?: \d\d)?"
)
"""and the hour after one"""
_AMOUNT = re.compile(r"\d\d \d{3} \d{3}|\d+0{6}|\d+(?: \d{3})* 000 000")
"""`NHS: 20 000 000 patients`"""
IDENTITY = "|".join([*(rf"\b{form}" + r"\b" * (form[-1] != ")") for form, _ in _FORMS), _CALLED])
"""For RE2."""


def is_identity(text: str, start: int, end: int) -> bool:
    """Whether text[start:end], which has the pattern, is one."""
    number = text[start:end]
    compact = re.sub(r"[ .()-]", "", number).upper()
    check = next((check for form, check in _FORMS if re.fullmatch(form, number)), None)
    if check is None:  # a word before it says what it is
        if compact[:5].isalpha():  # PAN
            return True
        is_other = _DATES.fullmatch(number) or _AMOUNT.fullmatch(number)
        return not is_other and sum(map(str.isdigit, compact)) >= _MIN_DIGITS
    if check is identity_checks.is_aadhaar and _MORE_DIGITS.match(text, end) is not None:
        return False
    return check(compact)
