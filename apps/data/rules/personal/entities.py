"""What counts as personal: a pattern for each kind, and the check that tells it from a lookalike.

An entity's order is its precedence: a Chinese identity number may also pass as a card's.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass

from apps.data.rules.personal.identities import IDENTITY, MARK, is_identity
from apps.data.rules.personal.telephones import TELEPHONE, is_telephone

Check = Callable[[str, int, int], bool]
"""check(text, start, end): whether text[start:end] is what it looks like."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entity:
    name: str
    pattern: str
    """for RE2; `\\b` is a boundary of ASCII words; its group, if one matched, is what counts"""
    is_real: Check | None = None


_SECRET = (
    r"\b(?:sk-[A-Za-z0-9_\-]{20,}|[rs]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/]{20,}"
    r"|A[KS]IA[0-9A-Z]{16}(?:[\s,;|:\"']{1,4}[A-Za-z0-9/+]{40})?"
    r"|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{30,}|hf_[A-Za-z0-9]{20,}"
    r"|xox[abeprs]-[A-Za-z0-9\-]{10,}|xapp-[0-9]-[A-Za-z0-9\-]{20,}|AIza[0-9A-Za-z_\-]{34,35}"
    r"|GOCSPX-[A-Za-z0-9_\-]{28}|gl(?:pat|rt|dt|ptt|cbt|ft|soat|agent)-[A-Za-z0-9_\-]{20,}"
    r"|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_\-]{32,}|rubygems_[a-f0-9]{20,}"
    r"|SG\.[A-Za-z0-9_\-]{16,}\.[A-Za-z0-9_\-]{16,}|key-[0-9a-f]{32}|[0-9a-f]{32}-us[0-9]{1,2}"
    r"|(?:gsk|r8)_[A-Za-z0-9]{30,}|xai-[A-Za-z0-9]{20,}|dckr_pat_[A-Za-z0-9_\-]{20,}"
    r"|ya29\.[A-Za-z0-9_\-]{30,}|(?:bot)?[0-9]{8,10}:AA[A-Za-z0-9_\-]{32,33}"
    r"|shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32}|do[opr]_v1_[a-f0-9]{20,}|lin_api_[A-Za-z0-9]{20,}"
    r"|pplx-[A-Za-z0-9]{20,}|[MNO][A-Za-z0-9_\-]{23,27}\.[A-Za-z0-9_\-]{6}\.[A-Za-z0-9_\-]{27,}"
    r"|glsa_[A-Za-z0-9]{20,}_[A-Fa-f0-9]{8}|glc_[A-Za-z0-9+/]{20,}|eyJrIjoi[A-Za-z0-9+/]{20,}"
    r"|hv[bs]\.[A-Za-z0-9_\-]{20,}|dapi[a-f0-9]{32}|NRAK-[A-Z0-9]{20,}|PMAK-[a-f0-9]{20,}-[a-f0-9]+"
    r"|(?:fig[dop]{1,2}|pcsk|sntry[su]|lsv2_(?:pt|sk))_[A-Za-z0-9+/=_\-]{20,}"
    r"|sbp_[a-f0-9]{20,}|ntn_[A-Za-z0-9]{20,}"
    r"|secret_[A-Za-z0-9]{43}|tskey-[a-z]+-[A-Za-z0-9\-]{20,}|pat[A-Za-z0-9]{14}\.[a-f0-9]{20,}"
    r"|ATATT3[A-Za-z0-9_\-=]{20,}|AGE-SECRET-KEY-1[A-Z0-9]{20,}"
    r"|hooks\.slack\.com/services/T[A-Z0-9]+/B[A-Z0-9]+/[A-Za-z0-9]{20,}"
    r"|discord(?:app)?\.com/api/webhooks/[0-9]{10,}/[A-Za-z0-9_\-]{60,}"
    r"|eyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{4,}\.[A-Za-z0-9_\-]{2,})\b"
    r"|(?i:secret[ _\-]?(?:access[ _\-]?)?(?:key)?)[\"'`*]{0,2}(?: ?\[[\w*]{0,20}\])?"
    r"\s*(?:[:=,]|=>|:=|\x{FF1A}|\bis\b|\n)\s*[\"'`*]{0,2}([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|\z)"
    r"|(?i:account_?key|shared_?access_?key)[\"']?\s*[:=]\s*[\"']?([A-Za-z0-9/+]{43,}={1,2})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?:\s*[A-Z][A-Za-z\-]+: [^\r\n]*)*"
    r"[A-Za-z0-9+/=\s\\]*-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----"
)
"""Of services whose keys have a head of their own, and those of AWS and Azure after their name."""
_LETTER = r"\p{Latin}\p{Greek}\p{Cyrillic}"
"""of scripts with blanks between words: elsewhere an address touches what stands around it"""
_EMAIL = (
    rf"[{_LETTER}0-9][{_LETTER}0-9._%+\-]*@[{_LETTER}0-9][{_LETTER}0-9.\-]*"
    r"\.(?:[A-Za-z]{2,}\b|[\p{Greek}\p{Cyrillic}]{2,})"
)
_IBAN_COUNTRIES = {
    15: "NO", 16: "BE", 18: "DK|FI|FK|FO|GL|NL|SD", 19: "MK|SI", 20: "AT|BA|EE|KZ|LT|LU|MN|XK",
    21: "CH|HR|LI|LV", 22: "BG|BH|CR|DE|GB|GE|IE|ME|RS|VA", 23: "AE|GI|IL|IQ|OM|SO|TL",
    24: "AD|CZ|ES|MD|PK|RO|SA|SE|SK|TN|VG", 25: "LY|PT|ST", 26: "IS|TR",
    27: "BI|DJ|FR|GR|IT|MC|MR|SM", 28: "AL|AZ|BY|CY|DO|GT|HN|HU|LB|NI|PL|SV",
    29: "BR|EG|PS|QA|UA", 30: "JO|KW|MU|YE", 31: "MT|SC", 32: "LC", 33: "RU",
}  # fmt: skip
"""Characters of an account's number and the countries where it has so many (ISO 13616)."""
_IBAN = "|".join(
    rf"\b(?i:{countries})[0-9]{{2}}(?: ?[A-Za-z0-9]){{{size - 4}}}\b"
    for size, countries in _IBAN_COUNTRIES.items()
)
_SSN = (
    r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b"
    rf"|\b(?i:ssn|social security(?: number| no)?)(?:{MARK}|\bis\b){{1,6}}"
    r"([0-9]{3}[ .]?[0-9]{2}[ .]?[0-9]{4})\b"
)
_CARD = r"\b[0-9](?:[ \-]?[0-9]){12,18}\b"
_IP = (
    r"\b[0-9]{1,3}(?:\.[0-9]{1,3}){3}\b"
    r"|\b[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}\b"
)
_BEFORE_CHARS = 24
_VERSION_BEFORE = re.compile(
    r"(?i)(?:[=<>~!^]=? ?|version\w*\W{1,5}"
    r"|\b(?:v|ver|version|release|build|firmware|section|chapter|clause|article|paragraph|item"
    r"|rule|step|oid)[.: ]{0,2}"
    r"|[\w)]-|@|[^/]/|\.|\d:)\Z"
)
_VERSION_AFTER = re.compile(r"\.\w|-(?:rc|beta|alpha|dev|\d)|\+\w|[a-z]")
_DECIMALS_AFTER = re.compile(r"\.\d|[eE]?\+\d")
_OBJECT_IDENTIFIER = re.compile(r"2\.5\.(?:4|29)\.|1\.3\.|1\.2\.840\.")
_VERSION_LIKE = re.compile(r"[0-7](?:\.[0-9]){3}|.*\.0")
_FILE_ENDINGS = frozenset(
    ("js", "ts", "css", "png", "jpg", "jpeg", "gif", "webp", "svg", "json", "html", "tgz", "txt")
)
_REMOTE_AFTER = re.compile(r":[\w~/.-]*/|:[\w.-]+\.git\b")
_DOCUMENTED_IPV6 = ipaddress.IPv6Network("2001:db8::/32")


def _is_secret(text: str, start: int, end: int) -> bool:
    """Not words alone: `hvs.get_horizontal_visibility`, `sk-learn-contrib-extensions`."""
    return re.fullmatch(r"[a-z_.\-]+", text[start:end]) is None


def _is_email(text: str, start: int, end: int) -> bool:
    """Not `git@github.com:org/repo.git`, `scp a@host.com:dir/file`, `package@1.2.3.tgz`,
    `vue@next.js`, `logo@2x.png` or `q@k.transpose(-2, -1)`."""
    name, _, host = text[start:end].partition("@")
    if name == "git" or re.match(r"v?\d+\.\d+\.|\d+x\.", host) is not None:
        return False
    if text[end : end + 1] == "(" or host.rpartition(".")[2].lower() in _FILE_ENDINGS:
        return False
    return _REMOTE_AFTER.match(text, end) is None


def _is_iban(text: str, start: int, end: int) -> bool:
    """Modulo 97 of the rearranged number, ISO 13616, of more digits than letters: `GB20 is a car`
    may go on as long."""
    compact = text[start:end].replace(" ", "").upper()
    if 2 * sum(map(str.isdigit, compact)) < len(compact):
        return False
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


def _is_card(text: str, start: int, end: int) -> bool:
    """Luhn's check, ISO/IEC 7812-1; 13 to 19 digits in groups, that open as a payment card's do.

    Of numbers at random, times in milliseconds or lists of digits, every tenth has a right sum.
    `4111 1111 1111 1111`: every second digit from the right doubled, the sum is 30.
    """
    number = text[start:end]
    if number[0] not in "23456" or _is_part_of_a_number(text, start, end):
        return False
    if tuple(map(len, re.split("[ -]", number)))[:3] not in _CARD_GROUPS and not number.isdigit():
        return False
    digits = [int(c) for c in number if c.isdigit()]
    doubled = [d * 2 - 9 if d > 4 else d * 2 for d in digits[-2::-2]]
    return len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


_CARD_GROUPS = ((4, 4, 4), (4, 6, 5), (4, 6, 4))


def _is_part_of_a_number(text: str, start: int, end: int) -> bool:
    """`0.4539578717691234` and `1.2E+12345680` have digits that are nobody's; `Tel.030 123` has."""
    before = text[max(0, start - 2) : start]
    is_fraction = before[-1:] == "." and not before[0].isalpha()
    return is_fraction or before[-1:] == "_" or _DECIMALS_AFTER.match(text, end) is not None


def _is_ssn(text: str, start: int, end: int) -> bool:
    """Areas 000, 666 and 900-999, group 00 and serial 0000 were never issued."""
    digits = re.sub(r"\D", "", text[start:end])
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"


def _is_public_ip(text: str, start: int, end: int) -> bool:
    """Not a private address, and no version: `foo==1.2.3.4`, `Chrome/96.0.4664.110`."""
    try:
        address = ipaddress.ip_address(text[start:end])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        return address.is_global or address in _DOCUMENTED_IPV6
    before = text[max(0, start - _BEFORE_CHARS) : start]
    if _OBJECT_IDENTIFIER.match(text, start) is not None:
        return False
    if _VERSION_BEFORE.search(before) is not None or _VERSION_AFTER.match(text, end) is not None:
        return False
    return address.is_global and _VERSION_LIKE.fullmatch(text, start, end) is None


def _is_phone(text: str, start: int, end: int) -> bool:
    return not _is_part_of_a_number(text, start, end) and is_telephone(text, start, end)


def _is_national_id(text: str, start: int, end: int) -> bool:
    return not _is_part_of_a_number(text, start, end) and is_identity(text, start, end)


ENTITIES = (
    Entity(name="SECRET", pattern=_SECRET, is_real=_is_secret),
    Entity(name="EMAIL", pattern=_EMAIL, is_real=_is_email),
    Entity(name="IBAN", pattern=_IBAN, is_real=_is_iban),
    Entity(name="NATIONAL_ID", pattern=IDENTITY, is_real=_is_national_id),
    Entity(name="CARD", pattern=_CARD, is_real=_is_card),
    Entity(name="SSN", pattern=_SSN, is_real=_is_ssn),
    Entity(name="IP", pattern=_IP, is_real=_is_public_ip),
    Entity(name="PHONE", pattern=TELEPHONE, is_real=_is_phone),
)
