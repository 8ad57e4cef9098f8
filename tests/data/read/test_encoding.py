"""Files that are no UTF-8: read where that is certain, else told what they seem to be."""

import json
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
    "ko": ("가장 가까운 역이 어디에 있습니까?", "모퉁이를 돌면 집 왼쪽에 있습니다."),
}
FOREIGN = [
    ("fr", "windows-1252", "windows-1252"),
    ("fr", "latin-1", "windows-1252"),
    ("ru", "windows-1251", "windows-1251"),
    ("zh", "gb18030", "gb18030"),
    ("ja", "shift_jis", "shift_jis"),
    ("ja", "euc_jp", "euc_jp"),
    ("ko", "euc_kr", "euc_kr"),
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
    assert "it seems to be windows-1252" in capsys.readouterr().out


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
