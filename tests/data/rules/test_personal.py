"""What is personal is masked by its kind; what only looks so stays as it is."""

import json
import re
from importlib.resources import files

import orjson
import pytest

from apps.data.read.record.layout import Turn
from apps.data.read.records import Record
from apps.data.rules.personal.mask import mask, personal_data
from apps.data.rules.profiles import Rules
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


AWS = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
KINDS = {
    "telephone in Chinese": ("手机 13812345678 谢谢", "手机 <PHONE> 谢谢"),
    "grouped": ("ring 138-1234-5678", "ring <PHONE>"),
    "identity number": ("身份证11010519491231002X。", "身份证<NATIONAL_ID>。"),
    "IPv6": ("at 2001:db8::1, then", "at <IP>, then"),
    "bare web token": ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", "<SECRET>"),
    "hub token": ("hf_abcdefghijklmnopqrstuvwxyzABCDEF", "<SECRET>"),
    "DNI": ("DNI 12345678Z", "DNI <NATIONAL_ID>"),
    "NIE": ("NIE X1234567L", "NIE <NATIONAL_ID>"),
    "Russia, numbers": (
        "Паспорт номер 4510123456, мой паспорт 45 10 123456",
        "Паспорт номер <NATIONAL_ID>, мой паспорт <NATIONAL_ID>",
    ),
    "CPF": ("CPF 529.982.247-25", "CPF <NATIONAL_ID>"),
    "France": ("Appelle le 06 12 34 56 87", "Appelle le <PHONE>"),
    "France, in order": ("Appelle le 06 12 34 56 78", "Appelle le <PHONE>"),
    "mail before a bracket": ("Ann (ann@mail.example.org), Bob", "Ann (<EMAIL>), Bob"),
    "North America": ("+14155552671 or 415 555 2671", "<PHONE> or <PHONE>"),
    "United Kingdom": ("Ring me on 020 7946 0958 please, mobile 07700 900123", None),
    "Japan": ("090-1234-5678", "<PHONE>"),
    "key of a service": (
        '{"private_key": "-----BEGIN PRIVATE KEY-----\\nMIIE+/=\\nab\\n-----END PRIVATE KEY-----"}',
        '{"private_key": "<SECRET>"}',
    ),
    "locked key": (
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,AB12\n\n"
        "MIIE\n-----END RSA PRIVATE KEY-----",
        "<SECRET>",
    ),
    "PGP key": (
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\r\nVersion: GnuPG v2.0\r\n\r\nlQOY\r\n=aB3d\r\n"
        "-----END PGP PRIVATE KEY BLOCK-----",
        "<SECRET>",
    ),
    "bot token": (f"bot 123456789:AA{'xY9_-' * 6}abc!", "bot <SECRET>!"),
    "bot token in its address": (
        f"https://api.telegram.org/bot123456789:AA{'xY9_-' * 6}abc/getMe",
        "https://api.telegram.org/<SECRET>/getMe",
    ),
    "ends in a hyphen": (
        f"bot 123456789:AA{'xY9_-' * 6}ab- and AIza{'xY9_-' * 6}abcd- too",
        "bot <SECRET>- and <SECRET>- too",
    ),
    "letters with marks": ("jörg@example.de, müller.h@beispiel.de", "<EMAIL>, <EMAIL>"),
    "Cyrillic": ("Пиши на иван@почта.рф.", "Пиши на <EMAIL>."),
    "between Chinese": ("联系我abc@qq.com谢谢", "联系我<EMAIL>谢谢"),
    "code in brackets": ("(+49) 170 1234567, (+1) 415-555-2671", "<PHONE>, <PHONE>"),
    "register of domains": ("Phone: +1.4155552671", "Phone: <PHONE>"),
    "other services": (
        f"shpat_{'0a' * 16} dop_v1_{'0a' * 32} lin_api_{'aB' * 20} pplx-{'aB' * 22}",
        "<SECRET> <SECRET> <SECRET> <SECRET>",
    ),
    "chat bots": (
        f"M{'aB' * 12}.{'cD' * 3}.{'eF' * 14} https://hooks.slack.com/services/T0A/B0A/{'x' * 24}",
        "<SECRET> https://<SECRET>",
    ),
    "numbers after it": (
        "+31 6 12 34 56 78 1012 AB, +33 6 12 34 56 78 2024",
        "<PHONE> 1012 AB, <PHONE> 2024",
    ),
    "wide digits and marks": (
        "電話：０３－１２３４－５６７８、090−1234−5678　カード４１１１１１１１１１１１１１１１",
        "電話：<PHONE>、<PHONE>　カード<CARD>",
    ),
    "wide mail": ("メールはtaro＠example．comです", "メールは<EMAIL>です"),
    "no-break blanks": ("appelle le 06\u00a012\u00a034\u00a056\u00a087 !", "appelle le <PHONE> !"),
    "digits of Arabic": ("هاتف: ٠٥٠١٢٣٤٥٦٧ او +٩٦٦ ٥٠ ١٢٣ ٤٥٦٧", "هاتف: <PHONE> او <PHONE>"),
    "digits of Persian": ("تلفن: ۰۹۱۲۳۴۵۶۷۸۹", "تلفن: <PHONE>"),
    "digits of Hindi": ("फोन: ९८७६५४३२१०।", "फोन: <PHONE>।"),
    "digits of Thai": ("โทร.๐๘๑-๒๓๔-๕๖๗๘ครับ", "โทร.<PHONE>ครับ"),
    "Taiwan": ("身分證字號：A123456789。", "身分證字號：<NATIONAL_ID>。"),
    "Hong Kong": ("HKID A123456(3) and G123456(A)", "HKID <NATIONAL_ID> and <NATIONAL_ID>"),
    "Singapore": ("NRIC S1234567D", "NRIC <NATIONAL_ID>"),
    "Mexico": ("CURP GOMC900101HDFRRL09", "CURP <NATIONAL_ID>"),
    "Russia": ("номер 112-233-445 95 и паспорт 4510 123456", None),
    "Chile": ("RUT 12.345.678-5", "RUT <NATIONAL_ID>"),
    "Poland": ("PESEL: 44051401359", "PESEL: <NATIONAL_ID>"),
    "Germany": ("Steuer-ID 86 095 742 719", "Steuer-ID <NATIONAL_ID>"),
    "Turkey": ("TC Kimlik No: 10000000146", "TC Kimlik No: <NATIONAL_ID>"),
    "My Number": ("マイナンバーは1234 5678 9018です", "マイナンバーは<NATIONAL_ID>です"),
    "passport": ("Passport number X1234567, 护照号码E12345678", None),
    "Canada": (
        "SIN 046 454 286 or (SIN): 046-454-286",
        "SIN <NATIONAL_ID> or (SIN): <NATIONAL_ID>",
    ),
    "Canada, in full": ("My social insurance number is 046454286", None),
    "National Health Service": ("NHS number: 943 476 5919", "NHS number: <NATIONAL_ID>"),
    "Australia": ("tax file number 123 456 782", "tax file number <NATIONAL_ID>"),
    "India": ("ABCPE1234F; pan card: abcde1234f", "<NATIONAL_ID>; pan card: <NATIONAL_ID>"),
    "Ireland": ("PPSN 1234567TA.", "PPSN <NATIONAL_ID>."),
    "IBAN in small letters": ("iban fr14 2004 1010 0505 0001 3m02 606", "iban <IBAN>"),
    "IBAN before other words": ("BE68 5390 0754 7034 BIC KREDBEBB", "<IBAN> BIC KREDBEBB"),
    "IBAN before a word of four": ("be68 5390 0754 7034 dann geht es", "<IBAN> dann geht es"),
    "IBAN and no-break blanks": ("GB82\xa0WEST\xa01234\xa05698\xa07654\xa032", "<IBAN>"),
    "SSN without hyphens": ("SSN: 123456789, ssn 123 45 6789", "SSN: <SSN>, ssn <SSN>"),
    "telephone and no-break blanks": ("Tél.\xa0: 06\u202f12\u202f34\u202f56\u202f87", None),
    "figure and thin blanks": ("Tel.\u20072345\u20096789", "Tel.\u2007<PHONE>"),
    "hyphen behind a bracket": ("(415)-555-2671, (415)\u2011555\u20112671", "<PHONE>, <PHONE>"),
    "dashes": ("(415) 555\u20132671", "<PHONE>"),
    "AWS": (f"AWS Secret Access Key [None]: {AWS}", "AWS Secret Access Key [None]: <SECRET>"),
    "AWS in a file": (f"aws_secret_access_key={AWS}\nx", "aws_secret_access_key=<SECRET>\nx"),
    "AWS in JSON": (f'{{"SecretAccessKey": "{AWS}"}}', '{"SecretAccessKey": "<SECRET>"}'),
    "AWS in a table": (f"AKIAIOSFODNN7EXAMPLE,{AWS}", "<SECRET>"),
    "Grafana": (f"glsa_{'aB3' * 10}xY_55e2f8be, eyJrIjoi{'T0tT' * 12}", "<SECRET>, <SECRET>"),
    "Azure": (f"AccountKey={'aB3/' * 21}aB==;x", "AccountKey=<SECRET>;x"),
    "on its own line": ("IBAN\n8.8.8.8 x", "IBAN\n<IP> x"),
}


@pytest.mark.parametrize("name", KINDS)
def test_national_forms_are_masked(name: str) -> None:
    text, expected = KINDS[name]
    masked, count = mask(text)
    assert count > 0
    assert expected is None or masked == expected


TELEPHONES = """
Netherlands: 06-12345678, 06 12345678, 06-12 34 56 78, 020-1234567, 010 123 45 67, 0123-456789
Belgium: 0470/12.34.56, 0470 12 34 56, 02 123 45 67
Australia: (02) 9876 5432, 0412 345 678, 02 9876 5432, (08) 9123-4567
New Zealand: 021 123 4567, (09) 312 3456
United Kingdom: (020) 7946 0958, 01632 960123, (01632) 960 123, 07700 900123
Ireland: 087 123 4567, (01) 873 1234
Germany: 030 12345678, 030/12345678, (030) 12345678, 089 / 1234567, 0171-1234567, 0151 23456789
Austria: 0664 1234567, 0664/1234567, 01/5120000
Germany: 030/12340000, 089 / 2180000
Switzerland: 079 123 45 67, 044 123 45 67
France: 06.12.34.56.87, 06-12-34-56-87
Italy: 06 12345678
Sweden: 070-123 45 67, 08-123 456 78
Finland: 040 123 4567, 040 1234567
Japan: (03) 1234-5678, 03-1234-5678, 03(1234)5678, 0120-123-456
Korea: 02-123-4567, 02-1234-5678
China: 010-12345678, 0755-12345678, (021) 62345678
Taiwan: (02) 2345-6789, 0912-345-678
India: 022-12345678, 098765 43210
Turkey: 0532 123 45 67, (0532) 123 45 67
Russia: 8 (495) 123-45-67, 8(495)123-45-67, 8-495-123-45-67, 7 (495) 123-45-67, 8 (916) 123 45 67
Ukraine: (044) 123-45-67, 050-123-45-67
Israel: 054-1234567, 054-123-4567
South Africa: 082 123 4567, (011) 123 4567
Hungary: 06 20 123 4567
Indonesia: 0812-3456-7890, (021) 1234567
Philippines: 0917 123 4567, (02) 8123 4567
Vietnam: 0912 345 678
Thailand: 081-234-5678
Pakistan: 0300-1234567
Bangladesh: 01712-345678
Argentina: (011) 4123-4567
Brazil: (11) 91234-5678
toll-free: 1 800 555 1234, (02) 123 456 789
United States: (415)555-2671, 1-415-555-2671, 1 (415) 555-2671, 415.555.2671, (415) 555-2671
of the world: +30 210 6543210, +40 720 130 450, +60 10 230 4560, (+49) 170 130 4560
abroad: 0049 170 1234567, 0031-6-12345678, +31 (0)6 12345678, +44 (0)20 7946 0958, +49 170/1234567
"""
CALLED = """
telephone number 0612345678; mob. 0412345678; Tel: 09012345678; WhatsApp 2345 6789;
Tlf: 22 33 44 55; Phone is 9876543210; Тел. 89161234567; тел: 8 916 123 45 67;
call me at 55 1234 5678;
телефон: 0671234567; мобильный 9161234567; τηλέφωνο 2101234567; הטלפון שלי: 0521234567;
נייד 0521234567; هاتفي هو 0501234567; رقم الجوال 00966501234567; شماره تلفن من 09123456789;
เบอร์โทรศัพท์ 0812345678; SĐT: 0912345678; Số điện thoại là 0912345678; telepon 081234567890;
핸드폰 번호는 01012345678; मोबाइल नंबर 9876543210; ফোন: 01712345678; Cep: 05321234567;
cellulare 333 1234567; celular 11 91234-5678; 电话：0101234567;
Tel.: 04-1234567; mobile: 98765-43210; Phone 2012 2034; Tel. 06 30 2012 345;
Tel: 1 650 250 3000; Phone 1 800 550 1000; Tel. 06 201 234 567
"""


def _telephones() -> list[str]:
    lines = [line.partition(": ")[2] for line in TELEPHONES.strip().split("\n")]
    return [number for line in lines for number in line.split(", ")]


@pytest.mark.parametrize("number", _telephones())
@pytest.mark.parametrize("text", ["You reach me under {}.", "{}", "Ann,\n{}\nBob", "Ann ({}), Bob"])
def test_telephones_are_masked_as_people_write_them_at_home(number: str, text: str) -> None:
    assert mask(text.format(number)) == (text.format("<PHONE>"), 1)


@pytest.mark.parametrize("said", re.split(r";\s", CALLED.strip()))
def test_a_word_says_that_digits_are_a_telephones(said: str) -> None:
    masked, count = mask(said)
    assert count == 1 and masked.endswith("<PHONE>")
    number = said[len(masked) - len("<PHONE>") :]
    assert mask(f"It has {number} of them") == (f"It has {number} of them", 0)


@pytest.mark.parametrize(
    "text",
    [
        "ISBN 0-306-40615-2, 0198526636, 0 19 852663 6, 978-0-19-852663-6; ISSN 0317-8471",
        "03-12-2023, 03/12/2023, 2023-03-12 08:30:00, 01-20231224, 05 20230405, 01.02.2023",
        "Boston 02139-4307; EIN 04-1234567; NDC 0173-0682-20; CAS 050-00-0; 04-1234567 is a firm",
        "order 06-12345678, invoice no. 0123-456789, ticket #0412 345 678, id: 020-1234567",
        "0101 1010 0110, 0100 0200 0300, 00 01 02 03 04 05, 0012 3456 7890 1234, 0031 2044 0034",
        "010 - 1234567 = -1234557, x = 0123-456789, 0644 1234, chmod 0755, 0x1234-56789",
        "010.020.030.040, 08:30:00, v0.12.345.678, doi:10.1016/0370-2693(88)90067-4",
        "04-00-04 12345678, 062-000 12345678, $0412 345 678, 1,0412,345,678",
        "01-23-45-67-89-ab, 0123-4567-89ab, 01 02 03 04 05, 05-12-18-23-34",
        "call(02)1234, (01) 09521234543213 (17) 261213, 10 20 30 40 and 2345 6789",
        "1 234 567 890, 12 345 678, 1900 2000, f(10) 1234 5678, 7 2345 6789",
        "1 250 500 1000 and | 1 200 300 4000 | and 05 120 230 340, 01 152 231 845",
        "Mon 06 11 2023 18, 09/11 2001 846, 04 07 1991 12; Mobile 2019 2020, (10) 1939-1945",
        "call(2147483647), system call 4294967295; chmod 0755 1234567, SN 0412-123456",
        "Chapter 04 / 1000000, 03/500000 done; Level 02/1234567, Kapitel 04 / 1234567",
        "Score: 0412 / 123456; epoch 04 12345678; step 012-3456789; progress: [0412 / 50000]",
        "between 1999 2004 and 22 33 44 55, 333 1234567 rows, 9876543210 ns, 55 1234 5678",
    ],
)
def test_numbers_of_other_things_are_no_telephones(text: str) -> None:
    assert mask(text) == (text, 0)


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
        "+40.7128 -74.0060 is a place, +100 200 300 400 and +5 10 15 20 25 points, +5 10 15 20",
        "(+2) 10 20 30 and (+5) 10 15 20 25",
        "+2023-01-15 is a line of a diff, y +1700000000 a sum, clause 12.1.3.2 one of a contract",
        "２０２３年１２月３１日, 第１２３４５６７８９０号, ٢٠٢٣-١٢-٣١ و ١٢٣٤٥٦٧٨٩٠",
        "注文番号 A223456789, f123456(7), S1234567A, 12.345.678-9, 123-456-789 00, тело 0671234567",
        "Honda Passport 1994-2002, my passport is 10-12-2023, passport 2023-12-31",
        "BSN: none, my passport of 2023, x.4539578717691234567, A123456780 and N123456789",
        "Passport 2021-05-12 14:30, passport 12-05-2021 10:00; ٠٫٤١١١١١١١١١١١١١١١",
        "the pan is 30 cm, SIN(30) + 1234567, in Spanish sin 130 692 544; ABCDE1234F and de12 3456",
        "commit 3f786850e387550fdab836ed7e6dc881de23001b, secret sauce: 40, be68 5390 0754 7035",
        "a secret: /usr/share/x, secret key: none, 10\u202f000\u202f000\xa0€, in 1999\u20132004",
        "the NHS: 20 000 000 patients, NAS: 12 345 678 bytes, Medicare: 65000000 people",
        "LC33 said is but would two man what made this like other their, PS29 he other that we our",
        "sbp_mean_of_the_first_three_measurements, sbp_change_from_week_12, ntn_terminal_name_x1",
        "hvs.get_horizontal_visibility_graph(), figo_stage_classification_of_cancer",
        "sizes 250 500 1000 2000, {210 220 2300} and 234 567 1891 2345; drawn: 05 12 18 23 34",
    ],
)
def test_what_only_looks_personal_stays(text: str) -> None:
    assert mask(text) == (text, 0)


def test_what_a_tool_is_called_with_is_masked_too() -> None:
    arguments = {"to": ["ann@example.org"], "card": 4111111111111111, "n": 3, "ok": True}
    made = {"id": "c4111111111111111", "type": "function"}
    calls = orjson.dumps([{**made, "function": {"name": "send", "arguments": arguments}}]).decode()
    turns = [Turn("user", "Send it.", 8), Turn("assistant", "", 0, tool_calls=calls)]
    record = Record(id="a", source_id="a", start=0, end=0, raw=b"", turns=turns)
    masked = personal_data(record, Rules(personal_data="mask"))
    assert isinstance(masked, list) and masked[0] is turns[0]
    function = orjson.loads(masked[1].tool_calls or "")[0]["function"]
    assert function["arguments"] == {"to": ["<EMAIL>"], "card": "<CARD>", "n": 3, "ok": True}
    assert orjson.loads(masked[1].tool_calls or "")[0]["id"] == made["id"]


def test_masking_takes_linear_time() -> None:
    blob = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo" * 30_000
    assert mask(blob) == (blob, 0)
    assert mask("Mail a@example.org now. " * 30_000) == ("Mail <EMAIL> now. " * 30_000, 30_000)


def test_the_published_precision_and_recall_are_those_of_the_code() -> None:
    published = json.loads((files("apps.data.rules") / "personal_quality.json").read_text())
    assert personal_cases.measured(mask) == published["entities"]
    assert published["lines"] == 2000
