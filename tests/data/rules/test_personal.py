"""What is personal is masked by its kind; what only looks so stays as it is."""

import json
from importlib.resources import files

import pytest

from apps.data.rules.personal import mask
from tests.data.rules import personal_cases


def test_personal_data_is_masked_by_kind() -> None:
    text = (
        "Mail jo.doe+x@mail.example.com or call +49 170 1234567 or (415) 555-1234; "
        "card 4111 1111 1111 1111, IBAN DE89 3704 0044 0532 0130 00, from 8.8.8.8, "
        "key sk-abcdefghijklmnopqrstuv12, SSN 078-05-1120."
    )
    masked, count = mask(text)
    assert masked == (
        "Mail <EMAIL> or call <PHONE> or <PHONE>; card <CARD>, IBAN <IBAN>, from <IP>, "
        "key <SECRET>, SSN <SSN>."
    )
    assert count == 8


KINDS = {
    "telephone in Chinese": ("手机 13812345678 谢谢", "手机 <PHONE> 谢谢"),
    "grouped": ("ring 138-1234-5678", "ring <PHONE>"),
    "identity number": ("身份证11010519491231002X。", "身份证<NATIONAL_ID>。"),
    "IPv6": ("at 2001:db8::1, then", "at <IP>, then"),
    "bare web token": ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", "<SECRET>"),
    "hub token": ("hf_abcdefghijklmnopqrstuvwxyzABCDEF", "<SECRET>"),
    "DNI": ("DNI 12345678Z", "DNI <NATIONAL_ID>"),
    "NIE": ("NIE X1234567L", "NIE <NATIONAL_ID>"),
    "CPF": ("CPF 529.982.247-25", "CPF <NATIONAL_ID>"),
    "France": ("Appelle le 06 12 34 56 87", "Appelle le <PHONE>"),
    "France, in order": ("Appelle le 06 12 34 56 78", "Appelle le <PHONE>"),
    "mail before a bracket": ("Ann (ann@mail.example.org), Bob", "Ann (<EMAIL>), Bob"),
    "North America": ("+14155552671 or 415 555 2671", "<PHONE> or <PHONE>"),
    "United Kingdom": ("Ring me on 020 7946 0958 please, mobile 07700 900123", None),
    "Japan": ("090-1234-5678", "<PHONE>"),
    "on its own line": ("IBAN\n8.8.8.8 x", "IBAN\n<IP> x"),
}


@pytest.mark.parametrize("name", KINDS)
def test_national_forms_are_masked(name: str) -> None:
    text, expected = KINDS[name]
    masked, count = mask(text)
    assert count > 0
    assert expected is None or masked == expected


@pytest.mark.parametrize(
    "text",
    [
        "192.168.0.1 and 10.0.0.7 and 127.0.0.1 and version 1.2.3.4567",
        "4111 1111 1111 1112 fails Luhn, and 1234567890123 too",
        "1609459200009 ms, ISBN 978-0-00-000000-2, [4 2 0 0 0 0 0 0 0 0 0 0 0 0 0 0]",
        "@decorator and a@b and user at example dot com",
        "pip install foo==1.2.3.4, foo >= 1.2.3.4, v1.2.3.4, foo-1.2.3.4.tar.gz, 1.2.3.4-rc1",
        "git clone git@github.com:org/repo.git; scp me@host.example.com:dir/file .",
        "npm i foo@1.2.3 bar@1.2.3.tgz; Chrome/96.0.4664.110; OID 1.3.6.1.4.1",
        "0.4539578717691234567, 2.2280433377390253297, 20080830 172159, 1.38435736E+12",
        "e+95657055186, 1.2345E+12345680, +1956570551809674817225, +35236450.6",
        'ObjectIdentifier("2.5.29.14"), 1.3.6.1',
        "std::vector, ab::cd, fe80::1, ::1, 12:30:45",
        "order 13812345678, 1,700,000,000 and 01 02 03 04 05",
        "12345678A is no DNI, 11010519491231002Y no id, 111.111.111-11 no CPF",
        "pi is 3.14159265358979, 2023-04-05 12:30:00, 1,000,000",
        "q@k.transpose(-2, -1), x@W.sum(), url(img/logo@2x.png), npm/vue@next.js, a@b.css",
        "+2023-01-15 is a line of a diff, y +1700000000 a sum, clause 12.1.3.2 one of a contract",
        "sizes 250 500 1000 2000, {210 220 2300} and 234 567 1891 2345; drawn: 05 12 18 23 34",
    ],
)
def test_what_only_looks_personal_stays(text: str) -> None:
    assert mask(text) == (text, 0)


def test_masking_takes_linear_time() -> None:
    blob = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo" * 30_000
    assert mask(blob) == (blob, 0)


def test_the_published_precision_and_recall_are_those_of_the_code() -> None:
    published = json.loads((files("apps.data.rules") / "personal_quality.json").read_text())
    assert personal_cases.measured(mask) == published["entities"]
    assert published["lines"] == 2000
