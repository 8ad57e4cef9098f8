"""Telephone numbers as people write them: a pattern, and the check of what stands around a match.

+49 170 1234567, 0049 170 1234567      of the world
06-12345678, (02) 9876 5432            of one country, with the 0 that begins calls there
(415) 555-2671, 1-415-555-2671         of North America
2345 6789, 0612345678                  of anything: a word before must say that it is one
"""

import itertools
import re

TELEPHONE = (
    r"(?:\(\+[0-9]{1,3}\)|\+[0-9]{1,3})[ .\-]?(?:\(0\) ?)?(?:\([0-9]{1,4}\)|[0-9]{1,4}/?)"
    r"(?:[ .\-]?[0-9]{2,4}){2,4}\b"
    r"|(?:(?:\b1[ \-]?)?\([2-9][0-9]{2}\)[ \-]?|(?:\b1[ \-])?\b[2-9][0-9]{2}[ .\-])"
    r"[2-9][0-9]{2}[ .\-][0-9]{4}\b"  # North America
    r"|\b1[3-9][0-9](?:[0-9]{8}|[ \-][0-9]{4}[ \-][0-9]{4})\b"  # China
    r"|\b0[1-9](?:[ .][0-9]{2}){4}\b"  # France
    r"|\(0[1-9][0-9]{0,3}\)[ \-/]?[0-9]{2,8}(?:(?: [0-9]{2,4}){1,3}|(?:-[0-9]{2,4}){1,3}|)\b"
    r"|\b0[1-9][0-9]{0,4}(?: ?/ ?|[ \-])[0-9]{5,8}\b"
    r"|\b0[1-9][0-9]{0,3}[ /\-][0-9]{2,4}"
    r"(?:(?: [0-9]{2,4}){1,3}|(?:-[0-9]{2,4}){1,3}|(?:\.[0-9]{2}){1,3})\b"
    r"|\b0[1-9][0-9]{0,2}\([0-9]{2,4}\)[0-9]{4}\b"  # Japan
    r"|\b00[1-9][0-9]{0,2}[ \-](?:\(0\) ?)?[0-9]{1,4}(?:[ \-/]?[0-9]{2,4}){2,4}\b"
    r"|\b0[1-9][0-9]{7,11}\b|\b00[1-9][0-9]{8,12}\b"
    r"|\b[78][ \-]?(?:\([0-9]{3}\) ?|[0-9]{3}[ \-])[0-9]{3}[ \-][0-9]{2}[ \-][0-9]{2}\b"  # Russia
    r"|\([1-9][0-9]\) ?9?[0-9]{4}[ \-][0-9]{4}\b"  # Brazil, Mexico
    r"|\b[6-9][0-9]{4}[ \-][0-9]{5}\b"  # India
    r"|\b[6-9][0-9]{2} [0-9]{3} [0-9]{3}\b"  # Spain, Poland
    r"|\b[2-9][0-9](?: [0-9]{2}){3}\b|\b[2-9][0-9]{3} [0-9]{4}\b"  # Denmark, Norway, Hong Kong
    r"|\b[1-9][0-9] 9?[0-9]{4}[ \-][0-9]{4}\b"  # Brazil, Mexico
    r"|\b3[0-9]{2}[ \-][0-9]{6,7}\b"  # Italy
    r"|\b[2-9][0-9]{9}\b|\b[78][0-9]{10}\b"
)
"""See the module's head."""

_PHONE_WORD = re.compile(
    r"(?i)\b(?:tel|phone|mobile|cell|call|fax|whatsapp|wechat|sms|text|handy|móvil|celular|"
    r"téléphone|portable)|[\u3400-\u9fff\uac00-\ud7a3]|тел|फ़ोन|फोन"
)
_CALLED_PHONE = re.compile(
    r"(?i)(?:\b(?:tel|tlf|t[eé]l[eé](?:ph|f)on\w*|tel[eé]f\w*|phone|mobile|mob|cell(?:phone)?"
    r"|call(?: (?:me|us|him|her|them))?|ring|dial|text me|sms|fax|whats ?app|wechat|viber|telegram"
    r"|handy|mobiel|mobil|m[oó]vil|celular|cellulare|portable|gsm|hotline"
    r"|telp|telepon|ponsel|cep|tfn|puh|puhelin|s[đd]t|điện thoại|di động|zalo"
    r"|тел(?:ефон\w{0,3})?|моб(?:[иі]льн\w{1,3})?"
    r"|τηλ(?:έφων\w{1,2})?|κινητό|ה?טל(?:פון)?|ה?נייד)\b"
    r"|电话|手机|微信|電話|携帯|联系方式|전화|휴대폰|핸드폰|연락처|फ़ोन|फोन|मोबाइल|ফোন|মোবাইল"
    r"|โทรศัพท์|โทร|เบอร์|มือถือ"
    r"|(?:هاتف|جوال|تلفون|تليفون|تلفن|موبایل|موبايل|محمول|واتساب|واتس|همراه|فون)[يیكهم]{0,2})"
    r"(?:[^\w\n]|\b(?:number|num|no|nr|n[uú]mero|is|at|on|unter|au|al|ist|est|es|my|to"
    r"|номер|номеру|מספר|שלי|هو|رقم|شماره|من|là|số|nomor|numaras\w|numero)\b"
    r"|是|号码?|番号|は|번호[는은]?|नंबर|নম্বর|คือ)*\Z"
)
"""A word for a telephone right before a number, with nothing between but "number is" and marks."""
_CALLED_OTHERWISE = re.compile(
    r"(?i)(?:#|\b(?:order|invoice|id|no|nr|num|number|case|ticket|part|item|sku|isbn|issn|ndc|ein"
    r"|serial|model|ref|reference|batch|lot|code|zip|account|version|build|doi|fig|table|page|pp?"
    r"|patent|docket|claim|tracking|key|date|bsb|asin|upc|ean|cas|sn|chmod"
    r"|chapter|chap|section|level|lvl|stage|step|epoch|iter|iteration|frame|episode|score|round"
    r"|wave|row|record|sample|photo|image|track"
    r"|kapitel|chapitre|cap[ií]tulo|capitolo|teil|parte|partie|seite|progress|loading|generation"
    r"|глава|часть|章|第)\b)[^\w\n]{0,4}\Z"
)
_BEFORE_CHARS = 24
_JOINED = re.compile(r"[A-Za-z0-9/-]")
_GROUPED_PHONE = re.compile(
    r"(?:1[ -]?)?(?:\(\d{3}\)[ -]?|\d{3}[ .-])\d{3}[ .-]\d{4}|\d{3}-\d{4}-\d{4}|[78][ (-].*"
)
_E164_DIGITS = 15
"""A telephone number has no more (ITU-T E.164)."""
_MIN_WORLD_DIGITS = 8
"""of one with a country code; nearly all have more"""
_DECIMALS = re.compile(r"\+\d{1,3}\.\d{1,7}")
"""`+40.7128` is a latitude, and `+1.4155552671` a number as registers of domains have it"""
_DATE_OF_A_DIFF = re.compile(r"\+(?:19|20)\d\d-(?:0[1-9]|1[0-2])-[0-3]\d")
_DATE = re.compile(r"0[1-9][ /](?:[0-2]\d|3[01]) (?:1[789]|20)\d\d(?: \d+)?")
"""and a number after it, such as the hour"""
_ROW = re.compile(r"0\d(?: \d{3}){3}")
"""of a table, behind its number; as a telephone it wants brackets, hyphens or a word before it"""
_YEARS = re.compile(r"(?:\([1-9]\d\) ?)?((?:1[89]|20)\d\d)([ -])((?:1[89]|20)\d\d)")
_LIMITS_OF_INTEGERS = frozenset(("2147483647", "2147483648", "4294967295", "4294967296"))
_NORTH_AMERICAN_CHARS = 12
"""of +1 and ten digits"""
_COUNT_OF = re.compile(r"0[1-9]\d{0,3} ?/ ?[1-9]\d?0{4,}")
"""`04 / 1000000`: so many of a round number; `030 / 12340000` is a firm in Berlin"""
_PAIRS = re.compile(r"0[1-9](?:[ .-][0-9]{2}){4}")
_LAST_BALL = 49
"""of a lottery"""
_WEAK_PHONE = re.compile(
    r"\([1-9]\d\) ?9?\d{4} \d{4}|[2-9]\d(?: \d\d){3}|[2-9]\d{3} \d{4}|[1-9]\d 9?\d{4}[ -]\d{4}"
    r"|[78] \d{3} \d{3} \d\d \d\d|3\d\d[ -]\d{6,7}|[2-9]\d{9}|[78]\d{10}|[6-9]\d{4}-\d{5}"
)
_NUMBER_BEFORE = re.compile(r"\d[ .,:]\Z|[.,_$#]\Z|[=*%] ?\Z")
_NUMBER_AFTER = re.compile(r"[ -]\d|[.,:/_*=]?[A-Za-z0-9_%]|[-+*/=^]")
_MIN_ABROAD_DIGITS = 11
_COUNTRIES = re.compile(
    "20|27|3[0-469]|4[013-9]|5[124-7]|6[0-6]|8[1246]|9[0-248]"
    "|212|234|254|35[1238]|380|385|42[01]|852|88[06]|966|97[12]"
)
"""Country codes (ITU-T E.164) of many people."""
_MORE_GROUPS = re.compile(r" \d{3,4}\b")


def is_telephone(text: str, start: int, end: int) -> bool:
    """Whether text[start:end], which has the pattern, is one.

    What could as well be seconds, an order or a date is one when a word before it says so.
    """
    number = text[start:end]
    before = text[max(0, start - _BEFORE_CHARS) : start]
    is_called = _CALLED_PHONE.search(before) is not None
    if start and _JOINED.match(text, start - 1) is not None:
        return False
    if _is_other_number(number) or (not is_called and _is_list_of_numbers(text, start, end)):
        return False
    if _PAIRS.fullmatch(number) is not None:
        return not _are_counted_or_drawn(number)
    if number[0] == "0" or number[:2] == "(0":
        return is_called or _is_national_phone(number, before, text[end : end + 3])
    if _WEAK_PHONE.fullmatch(number) is not None:
        return is_called
    if number[0] in "+(" or _GROUPED_PHONE.fullmatch(number) is not None:
        return True
    return _PHONE_WORD.search(before) is not None


def _is_other_number(number: str) -> bool:
    """A date, years, an integer's limit, or more or fewer digits than a telephone has."""
    if _DATE_OF_A_DIFF.match(number) is not None or _are_years(number):
        return True
    if number in _LIMITS_OF_INTEGERS or sum(map(str.isdigit, number)) > _E164_DIGITS:
        return True
    if "+" in number[:2] and sum(map(str.isdigit, number)) < _MIN_WORLD_DIGITS:
        return True
    if re.fullmatch(r"\+1\d+", number) is not None and len(number) != _NORTH_AMERICAN_CHARS:
        return True
    return _DECIMALS.fullmatch(number) is not None


def _are_counted_or_drawn(pairs: str) -> bool:
    """`01 02 03 04 05` counts, and `05 12 18 23 34` was drawn."""
    groups = [pairs[i : i + 2] for i in range(0, len(pairs), 3)]
    numbers = list(map(int, groups))
    return _counts_on(groups) or (numbers == sorted(numbers) and numbers[-1] <= _LAST_BALL)


def _is_national_phone(number: str, before: str, after: str) -> bool:
    """Of digits that begin with the 0 of calls within a country; `0049` is that of calls abroad.

    Yes: 06-12345678, (02) 9876 5432, 0412 345 678, 030/1234567, 0049 170 1234567
    No:  04-1234567 (a firm in the US), 02139-4307 (its place), 0173-0682-20 (a drug),
         0101 1010 0110, 0100 0200 0300, 0031 2044 0034 (code points), 01-20231224,
         06 11 2023 18 (a date and an hour), 05 120 230 340 (of a table)
    """
    if number.isdigit() or _CALLED_OTHERWISE.search(before) is not None:
        return False
    if any(form.fullmatch(number) is not None for form in (_DATE, _COUNT_OF, _ROW)):
        return False
    if _NUMBER_BEFORE.search(before) is not None or _NUMBER_AFTER.match(after) is not None:
        return False
    groups = re.findall(r"\d+", number)
    digits = "".join(groups)
    is_even = len({len(group) for group in groups}) == 1
    if digits.startswith("00"):
        is_known = _COUNTRIES.fullmatch(groups[0][2:]) is not None
        return is_known and not is_even and len(digits) >= _MIN_ABROAD_DIGITS
    if set(digits) <= {"0", "1"} or (is_even and all(group[0] == "0" for group in groups)):
        return False
    most_digits = 12 if len(groups) == 2 or digits.startswith("08") else 11
    if not 9 - ("(" in number) <= len(digits) <= most_digits:
        return False
    return _has_groups_of_a_phone(number, groups)


def _has_groups_of_a_phone(number: str, groups: list[str]) -> bool:
    """Brackets are a telephone's alone; hyphens are those of dates, drugs and post codes too."""
    if "(" in number:
        return True
    if len(groups) == 2:
        has_date = re.match(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])[0-3]\d", groups[1]) is not None
        return not has_date and (len("".join(groups)) > 9 or "/" in number)
    return "-" not in number or len(groups) > 3 or len(groups[-1]) > 2


def _are_years(number: str) -> bool:
    """`(10) 1939-1945` and `2019 2020`; `2012 2034` may as well be a number in Hong Kong."""
    years = _YEARS.fullmatch(number)
    if years is None:
        return False
    between = int(years[3]) - int(years[1])
    return between == 1 or (between > 1 and years[2] == "-")


def _is_list_of_numbers(text: str, start: int, end: int) -> bool:
    """`250 500 1000 2000` and `{210 220 2300}`: groups beside others, or all of them round or in
    even steps.

    A row's number before them, as in `1 250 500 1000`, looks like the 1 of North America. A `+`
    makes a telephone of them (+30 210 6543210), unless they count on.
    """
    start += 2 * text.startswith("1 ", start)
    is_of_world = text.startswith(("+", "(+"), start)
    groups = text[start:end].lstrip("(+").replace(")", "", is_of_world).split(" ")
    if len(groups) < 2 or not all(map(str.isdecimal, groups)):
        return False
    if _counts_on(groups) or (not is_of_world and all(group[-1] == "0" for group in groups)):
        return True
    if is_of_world:
        return False
    return _MORE_GROUPS.match(text, end) is not None and groups[0][0] != "0"


def _counts_on(groups: list[str]) -> bool:
    """`+5 10 15 20 25`: each is as much more than the one before."""
    numbers = list(map(int, groups))
    steps = {after - before for before, after in itertools.pairwise(numbers)}
    return len(groups) > 3 and len(steps) == 1
