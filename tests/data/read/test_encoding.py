"""Files that are no UTF-8: read where that is certain, else told what they seem to be."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from apps.common.errors import InputError
from apps.data.read import encoding
from tests.data.commands import conversation, rows_of, run_clean

TALKS = {
    "fr": ("Où est le café préféré de l'été ?", "À côté de la mairie, près du théâtre."),
    "ru": ("Где находится ближайшая станция?", "Она находится за углом, слева от дома."),
    "zh": ("最近的车站在哪里？请告诉我。", "就在拐角处，房子的左边。"),
    "ja": ("いちばんちかい駅はどこですか。", "かどをまがったところにあります。"),
    "ja in Windows": ("えきは①と②のどちらですか。", "①です。㈱のとなりにあります。"),
    "zh in Taiwan": ("最近的車站在哪裡？請告訴我。", "你好，我是一個學生，今天天氣很好。"),
    "ko in Windows": ("똠방각하는 무엇입니까?", "펲시콜라와 똠방각하에 대해 알려 드리겠습니다."),
    "ko": ("가장 가까운 역이 어디에 있습니까?", "모퉁이를 돌면 집 왼쪽에 있습니다."),
}
FOREIGN = [
    ("fr", "windows-1252", "windows-1252"),
    ("fr", "latin-1", "windows-1252"),
    ("ru", "windows-1251", "windows-1251"),
    ("zh", "gb18030", "gb18030"),
    ("ja", "shift_jis", "cp932"),
    ("ja in Windows", "cp932", "cp932"),
    ("ja", "euc_jp", "euc-jp"),
    ("ko", "euc_kr", "cp949"),
    ("ko in Windows", "cp949", "cp949"),
    ("zh in Taiwan", "big5", "big5"),
]


def dump(kind: str, language: str, count: int = 5) -> str:
    asked, said = TALKS[language]
    records = [conversation(f"r{i}", f"{i}. {asked}", said) for i in range(count)]
    if kind == "json":
        return json.dumps(records, ensure_ascii=False)
    if kind == "jsonl":
        return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records)
    return "prompt,completion\n" + "".join(f"{i}. {asked},{said}\n" for i in range(count))


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
@pytest.mark.parametrize(("language", "coding", "named"), FOREIGN)
def test_another_encoding_is_named_before_any_work(
    kind: str, language: str, coding: str, named: str, tmp_path: Path
) -> None:
    path = tmp_path / f"dump.{kind}"
    path.write_bytes(dump(kind, language).encode(coding))
    with pytest.raises(InputError, match=f"is not UTF-8: it seems to be {named}.*iconv -f") as said:
        run_clean(tmp_path / "out", path)
    assert TALKS[language][0][:3] in str(said.value)


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
@pytest.mark.parametrize(
    "coding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be", "utf-8-sig"]
)
def test_what_is_certain_is_read(kind: str, coding: str, tmp_path: Path) -> None:
    path = tmp_path / f"dump.{kind}"
    path.write_bytes(dump(kind, "zh").encode(coding))
    run_clean(tmp_path / "out", path, profile="none")
    texts = [row["messages"][1]["content"] for row in rows_of(tmp_path / "out")]
    assert texts == [TALKS["zh"][1]] * 5


def test_a_few_bytes_are_damage_and_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = dump("jsonl", "zh", 40).encode() + b'{"prompt": "Caf\xe9?", "completion": "Yes."}\n'
    (tmp_path / "dump.jsonl").write_bytes(text)
    ledger = run_clean(tmp_path / "out", tmp_path / "dump.jsonl", profile="none")
    assert ledger["records"]["quarantined"] == {"bad-utf-8": 1}
    assert ledger["records"]["kept"] == 40
    said = capsys.readouterr().out
    assert "1 of the first 81 places that are not ASCII is not" in said and "iconv" not in said


@pytest.mark.parametrize("damage", [b"\xe9", b"\xc3"])
def test_three_damaged_records_of_thousands_cost_themselves_alone(
    damage: bytes, tmp_path: Path
) -> None:
    line = b'{"prompt": "Is this question number %d?", "completion": "Yes."}\n'
    lines = [line % i for i in range(2000)]
    for i in (3, 500, 1999):
        lines[i] = lines[i].replace(b"Is", b"Is" + damage)
    (tmp_path / "dump.jsonl").write_bytes(b"".join(lines))
    ledger = run_clean(tmp_path / "out", tmp_path / "dump.jsonl", profile="none")
    assert ledger["records"]["quarantined"] == {"bad-utf-8": 3}
    assert ledger["records"]["kept"] == 1997


def test_an_english_file_of_another_encoding_is_refused() -> None:
    """Twelve kilobytes of plain text and a word with an accent, over and over."""
    head = (b"A plain sentence. " * 700 + b"A caf\xe9. ") * 80
    assert encoding.of_head(head)[1]


@pytest.mark.skipif(shutil.which("iconv") is None, reason="no iconv")
@pytest.mark.parametrize(("language", "coding"), [(one[0], one[1]) for one in FOREIGN])
def test_the_advice_mends_the_file(language: str, coding: str) -> None:
    text = dump("jsonl", language)
    advised = re.search(r"iconv -f (\S+) -t UTF-8", encoding.of_head(text.encode(coding))[0])
    assert advised is not None
    command = ["iconv", "-f", advised[1], "-t", "UTF-8"]
    mended = subprocess.run(command, input=text.encode(coding), capture_output=True, check=True)
    assert mended.stdout.decode() == text


def test_one_record_in_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "dump.json").write_bytes(b'[{"prompt": "Caf\xe9?", "completion": "Yes."}]')
    with pytest.raises(InputError, match=r"bad-utf-8.*windows-1252 or latin-1.*Café"):
        run_clean(tmp_path / "out", tmp_path / "dump.json")


@pytest.mark.parametrize("size", range(1, 12))
def test_a_head_that_ends_within_a_character_is_utf_8(size: int) -> None:
    assert encoding.of_head("aé站😀".encode()[:size]) == ("", False)


@pytest.mark.parametrize(
    "magic", [b'{"a": 1}', b"prompt,c", b"PAR1\x15\x04\x15\x10", b"\0\0\0\0\0\0\0\0", b"a"]
)
def test_what_has_no_zero_bytes_in_turn_is_not_wide(magic: bytes) -> None:
    assert encoding.wide(magic) is None
