"""Two thousand seeded lines: a thousand with one personal thing, a thousand with a lookalike.

A line is (text, entity, value): `value` is what must go from the text and the only thing that may;
of a lookalike, entity and value are empty. Numbers are drawn, check digits computed.
"""

import random
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator

from tests.data.corpus import WORDS

Line = tuple[str, str, str]
Draw = Callable[[random.Random], str]

_SAID: dict[str, list[str]] = {
    "SECRET": ["My key is {}", "export TOKEN={}", "Authorization: Bearer {}", "密钥：{}"],
    "EMAIL": ["Write to {} please", "E-Mail: {}", "我的邮箱是{}", "<{}>", "correo {}, gracias"],
    "IBAN": ["IBAN {}", "Please pay to {}.", "Konto {} bei der Bank"],
    "NATIONAL_ID": ["My number is {}", "身份证 {}", "DNI {}", "CPF: {}.", "id={}"],
    "SSN": ["SSN {}", "My social security number is {}."],
    "CARD": ["card {}", "Charge {} today", "信用卡 {}"],
    "IP": ["Connect to {}", "from {} at noon", "http://{0}/", "my server ({})"],
    "PHONE": ["Call me at {}", "Tel. {}", "phone: {}", "电话 {}", "WhatsApp {}, thanks"],
}


def digits(draw: random.Random, count: int, first: str = string.digits) -> str:
    return draw.choice(first) + "".join(draw.choices(string.digits, k=count - 1))


def letters(draw: random.Random, count: int, among: str = string.ascii_letters) -> str:
    return "".join(draw.choices(among, k=count))


def _luhn(digits_: str) -> str:
    """The digit that makes the sum right."""
    total = 0
    for i, char in enumerate(reversed(digits_)):
        value = int(char) * (2 if i % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def _card(draw: random.Random) -> str:
    body = draw.choice(["4", "51", "55", "2221", "6011"])
    body += digits(draw, 15 - len(body))
    number = body + _luhn(body)
    if draw.random() < 0.5:
        return number
    return draw.choice(" -").join(number[i : i + 4] for i in range(0, 16, 4))


def _iban(draw: random.Random) -> str:
    country, size = draw.choice([("DE", 18), ("AT", 16), ("ES", 20), ("PL", 24), ("BE", 12)])
    body = digits(draw, size)
    moved = body + "".join(str(int(c, 36)) for c in country) + "00"
    number = f"{country}{98 - int(moved) % 97:02d}{body}"
    if draw.random() < 0.5:
        return number
    return " ".join(number[i : i + 4] for i in range(0, len(number), 4))


def _chinese(draw: random.Random) -> str:
    born = f"{draw.randint(1950, 2010)}{draw.randint(1, 12):02d}{draw.randint(1, 28):02d}"
    body = digits(draw, 6, "123456") + born + digits(draw, 3)
    weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]
    total = sum(int(d) * w for d, w in zip(body, weights, strict=True))
    return body + "10X98765432"[total % 11]


def _spanish(draw: random.Random) -> str:
    number = digits(draw, 8, "123456789")
    return number + "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23]


def _cpf(draw: random.Random) -> str:
    number = [draw.randint(0, 9) for _ in range(9)]
    for size in (9, 10):
        rest = sum(d * (size + 1 - i) for i, d in enumerate(number)) % 11
        number.append(0 if rest < 2 else 11 - rest)
    shown = "".join(map(str, number))
    return f"{shown[:3]}.{shown[3:6]}.{shown[6:9]}-{shown[9:]}"


def _korean(draw: random.Random) -> str:
    born = f"{digits(draw, 2)}{draw.randint(1, 12):02d}{draw.randint(1, 28):02d}"
    return f"{born}-{digits(draw, 7, '1234')}"


def _british(draw: random.Random) -> str:
    return f"{draw.choice(['AB', 'CE', 'JK', 'PR'])}{digits(draw, 6)}{draw.choice('ABCD')}"


def _french(draw: random.Random) -> str:
    body = f"{draw.choice('12')}{digits(draw, 2)}{draw.randint(1, 12):02d}{digits(draw, 8)}"
    return f"{body}{97 - int(body) % 97:02d}"


def _italian(draw: random.Random) -> str:
    upper = string.ascii_uppercase
    return (
        f"{letters(draw, 6, upper)}{digits(draw, 2)}{draw.choice('ABCDEHLMPRST')}"
        f"{draw.randint(10, 31)}{draw.choice(upper)}{digits(draw, 3)}{draw.choice(upper)}"
    )


_AADHAAR = ["2341 2341 2346", "4991 1866 5246"]
"""Published as examples of Verhoeff's check."""


def _taiwanese(draw: random.Random) -> str:
    letter, born = draw.choice("AFH"), draw.choice("12") + digits(draw, 7)
    place = {"A": 10, "F": 15, "H": 17}[letter]
    total = place // 10 + place % 10 * 9
    total += sum(int(d) * w for d, w in zip(born, range(8, 0, -1), strict=True))
    return f"{letter}{born}{-total % 10}"


def _singaporean(draw: random.Random) -> str:
    body = digits(draw, 7)
    total = sum(int(d) * w for d, w in zip(body, (2, 7, 6, 5, 4, 3, 2), strict=True))
    return f"S{body}{'JZIHGFEDCBA'[total % 11]}"


def _snils(draw: random.Random) -> str:
    body = digits(draw, 9, "123456789")
    total = sum(int(d) * w for d, w in zip(body, range(9, 0, -1), strict=True)) % 101 % 100
    return f"{body[:3]}-{body[3:6]}-{body[6:]} {total:02d}"


def _chilean(draw: random.Random) -> str:
    body = digits(draw, 8, "12")
    total = sum(int(d) * (2 + i % 6) for i, d in enumerate(reversed(body)))
    return f"{body[:2]}.{body[2:5]}.{body[5:]}-{'0K987654321'[total % 11]}"


def _mexican(draw: random.Random) -> str:
    upper = string.ascii_uppercase
    return (
        f"{letters(draw, 4, upper)}{digits(draw, 6)}{draw.choice('HM')}"
        f"{letters(draw, 5, upper)}{digits(draw, 2)}"
    )


def _secret(draw: random.Random) -> str:
    any_of = string.ascii_letters + string.digits
    forms: list[Callable[[], str]] = [
        lambda: "sk-" + letters(draw, 48, any_of),
        lambda: "AKIA" + letters(draw, 16, string.ascii_uppercase + string.digits),
        lambda: "ghp_" + letters(draw, 36, any_of),
        lambda: "hf_" + letters(draw, 34, any_of),
        lambda: "xoxb-" + digits(draw, 12) + "-" + letters(draw, 24, any_of),
        lambda: "AIza" + letters(draw, 35, any_of),
        lambda: "glpat-" + letters(draw, 20, any_of),
        lambda: "npm_" + letters(draw, 36, any_of),
        lambda: f"eyJ{letters(draw, 17)}.eyJ{letters(draw, 30)}.{letters(draw, 43, any_of)}",
        lambda: "sk_live_" + letters(draw, 24, any_of),
    ]
    return draw.choice(forms)()


def _email(draw: random.Random) -> str:
    name = draw.choice([draw.choice(WORDS), f"{draw.choice(WORDS)}.{draw.choice(WORDS)}+x"])
    hosts = ["example.com", "mail.example.org", "163.com", "firma.example.de", "uni.example.ac.uk"]
    return f"{name}@{draw.choice(hosts)}"


def _ip(draw: random.Random) -> str:
    if draw.random() < 0.3:
        return f"2a02:{letters(draw, 4, '0123456789abcdef')}::{digits(draw, 3, '123')}"
    head = draw.choice([8, 23, 52, 84, 91, 142, 185, 203])
    return ".".join(map(str, [head, draw.randint(1, 200), draw.randint(1, 250), 7]))


def _phone(draw: random.Random) -> str:
    two = [digits(draw, 2) for _ in range(4)]
    area = digits(draw, 3, "23456789")
    return draw.choice(
        [
            f"+49 170 {digits(draw, 7)}",
            f"+86 13{digits(draw, 9)}",
            f"+1 {area}-{digits(draw, 3, '23456789')}-{digits(draw, 4)}",
            f"({area}) {digits(draw, 3, '23456789')}-{digits(draw, 4)}",
            f"13{digits(draw, 9)}",
            f"06 {' '.join(two)}",
            f"07{digits(draw, 3)} {digits(draw, 6)}",
            f"090-{digits(draw, 4)}-{digits(draw, 4)}",
            f"010-{digits(draw, 4)}-{digits(draw, 4)}",
            f"0170 {digits(draw, 7)}",
            f"8 (9{digits(draw, 2)}) {digits(draw, 3)}-{two[0]}-{two[1]}",
            f"(11) 9{digits(draw, 4)}-{digits(draw, 4)}",
            f"9{digits(draw, 4)} {digits(draw, 5)}",
            f"612 {digits(draw, 3)} {digits(draw, 3)}",
            wide(f"090-{digits(draw, 4)}-{digits(draw, 4)}"),
            f"+966 50 {digits(draw, 3)} {digits(draw, 4)}".translate(_ARABIC),
            f"+98 912 {digits(draw, 3)} {digits(draw, 4)}".translate(_PERSIAN),
        ]
    )


def wide(text: str) -> str:
    """ASCII as East Asian keyboards write it."""
    return "".join(chr(ord(char) + 0xFEE0) for char in text)


_ARABIC = str.maketrans(string.digits, "٠١٢٣٤٥٦٧٨٩")
_PERSIAN = str.maketrans(string.digits, "۰۱۲۳۴۵۶۷۸۹")


def _national_id(draw: random.Random) -> str:
    forms = [_chinese, _spanish, _cpf, _korean, _british, _french, _italian]
    forms += [_taiwanese, _singaporean, _snils, _chilean, _mexican]
    return draw.choice([*forms, lambda own: own.choice(_AADHAAR)])(draw)


def _ssn(draw: random.Random) -> str:
    return f"{draw.randint(100, 599)}-{draw.randint(10, 99)}-{draw.randint(1000, 9999)}"


PERSONAL: dict[str, Draw] = {
    "SECRET": _secret,
    "EMAIL": _email,
    "IBAN": _iban,
    "NATIONAL_ID": _national_id,
    "SSN": _ssn,
    "CARD": _card,
    "IP": _ip,
    "PHONE": _phone,
}


def _lookalike(draw: random.Random) -> str:
    word, n = draw.choice(WORDS), draw.randint
    version = ".".join(str(n(0, 30)) for _ in range(4))
    forms: list[Callable[[], str]] = [
        lambda: f"pip install {word}=={version}",
        lambda: f"{word}>={version},<{n(2, 9)}.0",
        lambda: f"Version {version} of {word}",
        lambda: f"{word}-{version}.tar.gz",
        lambda: f"Mozilla/5.0 Chrome/{n(90, 120)}.0.{n(1000, 9999)}.{n(10, 200)} Safari/537.36",
        lambda: f"snmpget 1.3.6.1.4.1.{n(1, 9)}.{n(1, 9)}",
        lambda: f"git clone git@github.com:{word}/{draw.choice(WORDS)}.git",
        lambda: f"scp file {word}@host.example.com:/var/{word}/",
        lambda: f"npm install {word}@{n(1, 9)}.{n(0, 9)}.{n(0, 9)}",
        lambda: f"@{word}.route and a@b, {word} at example dot com",
        lambda: f"ping 192.168.{n(0, 255)}.{n(0, 255)} or 10.0.{n(0, 9)}.1 or 127.0.0.1",
        lambda: f"std::{word}::next and fe80::1 and ::1",
        lambda: f"{n(1_600_000_000_000, 1_700_000_000_000)} ms since 1970",
        lambda: f"took {n(1_300_000_000, 1_999_999_999)} and {n(10**10, 10**11 - 1)} ns",
        lambda: f"ISBN 978-3-16-{n(100000, 999999)}-{n(0, 9)}",
        lambda: f"uuid {letters(draw, 8, '0123456789abcdef')}-e29b-41d4-a716-446655440000",
        lambda: f"sha {letters(draw, 40, '0123456789abcdef')}",
        lambda: f"{n(1990, 2024)}-0{n(1, 9)}-{n(10, 28)} 12:{n(10, 59)}:00",
        lambda: "pi is 3.14159265358979 and e is 2.718281828459045",
        lambda: f"lat {n(10, 80)}.{n(1000, 9999)}, lon {n(10, 80)}.{n(1000, 9999)}",
        lambda: f"range({n(1, 9)}000000, {n(10, 99)}000000)",
        lambda: f"order {n(10**12, 2 * 10**12 - 1)} of {word}",
        lambda: "4111 1111 1111 1112 fails the check",
        lambda: f"[{', '.join(str(n(0, 9)) for _ in range(16))}]",
        lambda: "01 02 03 04 05 06",
        lambda: (
            f"1,{n(100, 999)},{n(100, 999)}.{n(10, 99)} euros in {n(1900, 2024)}-{n(1900, 2024)}"
        ),
        lambda: f"Part {n(100, 999)}-{n(10, 99)}-000{n(1, 9)}0",
        lambda: f"#{letters(draw, 6, '0123456789ABCDEF')} and 0x{letters(draw, 8, 'ABCDEF')}",
        lambda: f"see section 3.{n(1, 9)}.{n(1, 9)}.{n(1, 9)} of the {word}",
        lambda: f"{word}_id = 12345678A1",
        lambda: "DE00 1234 5678 9012 3456 78 is no account",
        lambda: f"{n(10, 99)}.{n(100, 999)}.{n(100, 999)}/0001-{n(10, 99)}",
        lambda: f"score 900-{n(10, 99)}-{n(1000, 9999)}",
        lambda: f"call 555-{n(1000, 9999)}",
        lambda: (
            wide(f"{n(1990, 2024)}/{n(1, 12)}/{n(10, 28)}") + "、" + wide(str(n(10**9, 10**10)))
        ),
        lambda: f"{n(1990, 2024)}-0{n(1, 9)}-{n(10, 28)}".translate(_ARABIC),
        lambda: f"model A{n(3, 9)}{n(10**7, 10**8 - 1)}, f{n(100000, 999999)}(x)",
    ]
    return draw.choice(forms)()


def lines(count: int = 2000, *, seed: int = 0) -> Iterator[Line]:
    """Personal things and lookalikes in turn."""
    draw = random.Random(seed)
    kinds = list(PERSONAL)
    for i in range(count):
        if i % 2:
            yield f"{draw.choice(WORDS)}: {_lookalike(draw)}", "", ""
            continue
        entity = kinds[i // 2 % len(kinds)]
        value = PERSONAL[entity](draw)
        yield draw.choice(_SAID[entity]).format(value), entity, value


def measured(mask: Callable[[str], tuple[str, int]]) -> dict[str, dict[str, float]]:
    """Precision and recall (0-1) of each entity; right is what takes the value out, whole."""
    right: Counter[str] = Counter()
    put: Counter[str] = Counter()
    there: Counter[str] = Counter()
    for text, entity, value in lines():
        masked, _ = mask(text)
        put.update(re.findall("<([A-Z_]+)>", masked))
        if entity:
            there[entity] += 1
            right[entity] += masked == text.replace(value, f"<{entity}>")
    return {
        entity: {
            "cases": there[entity],
            "precision": round(right[entity] / max(1, put[entity]), 4),
            "recall": round(right[entity] / there[entity], 4),
        }
        for entity in there
    }
