"""Which encoding a text file has, by its first bytes: UTF-8, or the one that it seems to have.

UTF-16 and UTF-32 are certain: by their mark, or by the zero bytes that no text has. Of one byte a
character, or of one and two, nothing is certain; what such a file seems to be is only said.
"""

import codecs
import itertools
import re

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as that of UTF-16 does
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_ASCII = rb"[\t\n\r -~]"
_UNMARKED = (
    (re.compile(_ASCII + rb"\0\0\0" + _ASCII), "utf-32-le"),
    (re.compile(rb"\0\0\0" + _ASCII + rb"\0"), "utf-32-be"),
    (re.compile(_ASCII + rb"\0" + _ASCII + rb"\0"), "utf-16-le"),
    (re.compile(rb"\0" + _ASCII + rb"\0" + _ASCII), "utf-16-be"),
)
MAGIC_BYTES = 8
"""As many of a file say whether it is one of these."""
_FOREIGN = re.compile(rb"[\x80-\xff]+")
_LOOKED_AT = 10_000
_MIN_FOREIGN = 3
"""Places that are no UTF-8 before they are more than damage."""
_FOREIGN_EVERY_BYTES = 20_000
"""They lie nearer together than this in a text of another encoding, even in an English one."""
_MANY_FOREIGN = 20
"""So many are no damage, however far apart."""
_RARE = 0.1
"""By chance some of the bytes of another encoding are UTF-8."""
_LONG_RUN_BYTES = 1.6
"""A letter with an accent stands alone among others, letters of other scripts in words."""
_SCRIPTS = {
    "cp932": (re.compile("[\u3041-\u3093]"), 0.3),
    "euc-jp": (re.compile("[\u3041-\u3093]"), 0.3),
    "cp949": (re.compile("[\uac00-\ud7a3]"), 0.8),  # Chinese is Hangul by half, when so read
    "windows-1251": (re.compile("[\u0430-\u044f]"), 0.6),
}
"""What most texts of an encoding have, and the least share of it among what is not ASCII.

Windows' Korean and Japanese hold EUC-KR and Shift JIS, and characters such as a circled 1 beside
them. Japanese comes first: it may be Hangul when so read, while Korean is never Hiragana."""
_OTHERS = ("gb18030", "big5")
_PRIVATE_USE = re.compile("[\ue000-\uf8ff]")
"""Characters of no text: bytes that mean nothing in an encoding may be read as them."""
_SHOWN_BYTES = 24
_NO_TEXT = (
    "it has zero bytes, and so is no text; expected JSON, JSON Lines, CSV, TSV, Parquet or Arrow"
)


def wide(magic: bytes) -> str | None:
    """The name of the UTF-16 or UTF-32 that a text file of these first bytes has."""
    for mark, name in _MARKS:
        if magic.startswith(mark):
            return name
    return next((name for pattern, name in _UNMARKED if pattern.match(magic)), None)


def is_utf8(data: bytes) -> bool:
    """Whether all of it is; halves of surrogate pairs are too."""
    if data.isascii():
        return True
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def of_head(head: bytes) -> tuple[str, bool]:
    """Of a file whose first bytes are not all UTF-8: what it seems to be and how to convert it, and
    whether it is that. A few wrong bytes are damage, and cost their records only: few in number,
    few for the size of the text, or few beside the places that are UTF-8.

    b'{"text": "caf\\xe9"}'  ->  "it seems to be windows-1252 or latin-1 (...", False
    b'{"text": "caf\\xc3\\xa9"}'  ->  "", False
    b'{"text": "caf\\xc3\\xa9 na\\xefve"}'  ->  "1 of the first 2 places ...", False
    """
    head = _whole(head)
    if is_utf8(head):
        return "", False
    runs = [match[0] for match in itertools.islice(_FOREIGN.finditer(head), _LOOKED_AT)]
    wrong = [run for run in runs if not is_utf8(run)]
    if not wrong:
        return "", False
    if 2 * len(wrong) <= len(runs):
        return _damage(len(wrong), len(runs)), False
    advice = _NO_TEXT if b"\0" in head else _how_to_convert(head, wrong)
    is_dense = len(wrong) >= _MANY_FOREIGN or len(wrong) * _FOREIGN_EVERY_BYTES >= len(head)
    is_often = len(wrong) >= _MIN_FOREIGN and is_dense
    return advice, is_often and len(runs) - len(wrong) <= _RARE * len(wrong)


def _how_to_convert(head: bytes, wrong: list[bytes]) -> str:
    names = _guesses(head, wrong)
    at = head.find(wrong[0])
    shown = head[max(0, at - _SHOWN_BYTES) : at + _SHOWN_BYTES].decode(names[0], "replace")
    return (
        f"it seems to be {' or '.join(names)} ({' '.join(shown.split())!r}); save it as UTF-8, for "
        f"example with `iconv -f {names[0].upper()} -t UTF-8 FILE > COPY`"
    )


def _damage(num_wrong: int, num_places: int) -> str:
    """Of a file that is UTF-8 for the most part: to convert it would ruin the rest."""
    verb = "is" if num_wrong == 1 else "are"
    return (
        f"{num_wrong:,} of the first {num_places:,} places that are not ASCII {verb} not; the "
        "records with damage are set aside"
    )


def _whole(head: bytes) -> bytes:
    """Without the last character, which may be cut."""
    for place in range(1, min(4, len(head)) + 1):
        if head[-place] >= 0xC0:
            return head[:-place]
        if head[-place] < 0x80:
            break
    return head


def _guesses(head: bytes, runs: list[bytes]) -> list[str]:
    """The encodings in which the bytes are text, the likeliest first."""
    if sum(map(len, runs)) < _LONG_RUN_BYTES * len(runs):
        has_marks = any(0x80 <= byte < 0xA0 for run in runs for byte in run)
        return ["windows-1252"] if has_marks else ["windows-1252", "latin-1"]
    for name, (letters, share) in _SCRIPTS.items():
        text = _decoded(head, name)
        if len(letters.findall(text)) > share * sum(not char.isascii() for char in text):
            return [name]
    return [name for name in _OTHERS if _decoded(head, name)] or ["windows-1252"]


def _decoded(head: bytes, name: str) -> str:
    """Nothing, where it cannot be so; a character may be cut at the end."""
    try:
        text = codecs.getincrementaldecoder(name)().decode(head)
    except UnicodeDecodeError:
        return ""
    return "" if _PRIVATE_USE.search(text) else text
