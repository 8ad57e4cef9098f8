"""Which of several equal conversations stays does not depend on who came first to the worker."""

import random
from pathlib import Path
from typing import Any

import orjson
import pytest

from apps.data.duplicates.keys import normalized
from apps.data.rules.profiles import Rules
from tests.data import corpus
from tests.data.commands import conversation, rows_of, run_clean, write_dump


def dropped(out: Path) -> dict[str, tuple[str, str]]:
    return {row["source_id"]: (row["rule"], row["detail"]) for row in rows_of(out / "dropped")}


def kept(out: Path) -> list[str]:
    return [row["source_id"] for row in rows_of(out)]


LONG = "Please explain in some detail what the difference between nouns and verbs is in grammar."


def test_the_longest_of_equals_stays(tmp_path: Path) -> None:
    dump = write_dump(
        tmp_path / "dump.json",
        [
            conversation("same", "What is a noun?", "A word."),
            conversation("blanks", "what  is a NOUN?", "A\nword.\n"),
            conversation("continued", "What is a noun?", "A word.", "And a verb?", "Another."),
            conversation("short", "What is a noun?", "A word.", "Why?", "Because."),
            conversation("long", LONG, LONG, "And a verb?", "Another one of them."),
            conversation("opening", LONG, LONG, "Why?", "Because."),
        ],
    )
    run_clean(tmp_path / "out", dump)
    assert kept(tmp_path / "out") == ["continued", "short", "long"]
    rules = {name: rule for name, (rule, _) in dropped(tmp_path / "out").items()}
    assert rules == {"same": "duplicate", "blanks": "duplicate", "opening": "duplicate_opening"}
    winner = next(r["id"] for r in rows_of(tmp_path / "out") if r["source_id"] == "long")
    assert dropped(tmp_path / "out")["opening"][1] == winner


@pytest.mark.parametrize("reverse", [False, True])
def test_near_duplicates_go_and_merely_similar_texts_stay(reverse: bool, tmp_path: Path) -> None:
    draw = random.Random(7)
    records = []
    for i in range(30):
        words = corpus.Writer(i).words(300, 300).split()
        edited = [word if draw.random() > 0.01 else "changed" for word in words]
        records.append(conversation(f"long{i}", "Tell me.", " ".join([*words, "the", "end"])))
        records.append(conversation(f"near{i}", "Tell me.", " ".join(edited)))
        half = [*words[:150], *corpus.Writer(100 + i).words(150, 150).split()]
        records.append(conversation(f"half{i}", "Tell me.", " ".join(half)))
    dump = write_dump(tmp_path / "dump.json", records[::-1] if reverse else records)
    run_clean(tmp_path / "out", dump, rules=Rules(near_duplicate=0.7, duplicate_opening="keep"))
    gone = dropped(tmp_path / "out")
    assert {rule for rule, _ in gone.values()} == {"near_duplicate"}
    assert sorted(int(name[4:]) for name in gone) == list(range(30))
    assert not any(name.startswith("half") for name in gone)


def test_without_duplicate_rules_everything_stays(tmp_path: Path) -> None:
    same = conversation("a", "What is a noun?", "A word.")
    run_clean(tmp_path / "out", write_dump(tmp_path / "dump.json", [same] * 3), profile="none")
    assert kept(tmp_path / "out") == ["a", "a", "a"]


def test_an_id_counts_within_its_file_and_only_where_nothing_is_lost(tmp_path: Path) -> None:
    first = write_dump(
        tmp_path / "a.json",
        [
            conversation(
                "1",
                "Which tree loses its needles?",
                "The larch.",
                "And when is that?",
                "In autumn.",
            ),
            conversation("1", "Which tree loses its needles?", "The larch."),
            conversation("1", "And when is that?", "In autumn."),
            conversation("1", "What is a noun?", "A word."),
        ],
    )
    second = write_dump(tmp_path / "b.json", [conversation("1", "When was that?", "In spring.")])
    run_clean(tmp_path / "out", first, second)
    assert kept(tmp_path / "out") == ["1", "1", "1"]
    rules = sorted(row["rule"] for row in rows_of(tmp_path / "out" / "dropped"))
    assert rules == ["duplicate_id", "duplicate_id"]


CODE = {
    "case in code": ("x = A", "x = a"),
    "indentation": ("if a\n    b\nc", "if a\nb\nc"),
    "a tab": ("Try this\n\tab", "Try this\nab"),
    "blanks in a fence": ("```\nab  c\n```", "```\nab c\n```"),
    "case in a fence": ("```\nAb\n```", "```\nab\n```"),
    "case in a span": ("Say `Ab`.", "Say `ab`."),
    "powers": ("x\u00b2", "x2"),
}


@pytest.mark.parametrize("name", CODE)
def test_code_counts_to_the_letter(name: str) -> None:
    first, second = CODE[name]
    assert normalized(first) != normalized(second)


def test_prose_is_equal_whatever_its_blanks_case_and_form() -> None:
    assert normalized("What  is\na NOUN?") == normalized("what is a noun? ")
    assert normalized("Caf\u00e9") == normalized("cafe\u0301")
    assert normalized("See\r\n`A`  \n\n") == normalized("See\n`A`")


@pytest.mark.parametrize("language", ["en", "zh", "ja", "th", "ko", "ar", "hi"])
def test_near_duplicates_are_seen_in_every_script(language: str, tmp_path: Path) -> None:
    text, word, other = NEARLY[language]
    asked = conversation("a", text, text.replace(word, other, 1))
    changed = conversation("b", text, text)
    another = conversation("c", text[::-1], text[::-1])
    dump = write_dump(tmp_path / "dump.json", [asked, changed, another])
    rules = Rules(near_duplicate=0.7, duplicate_opening="keep", language_skip=())
    run_clean(tmp_path / "out", dump, rules=rules)
    stays = kept(tmp_path / "out")
    assert len(stays) == 2 and stays[1] == "c"


NEARLY = {
    "en": (
        "Mix the flour, water and salt, fold the dough every half hour, let it rise overni"
        "ght in "
        "a cold place, and bake it in a very hot covered pot until the crust is brown and "
        "crisp.",
        "brown",
        "dark",
    ),
    "zh": (
        "把面粉水和盐混合在一起每半小时折叠一次让它在阴凉的地方发酵一夜然后放进很热的锅里盖"
        "上盖子"
        "烤到表面变成棕色为止最后放凉再切",
        "棕",
        "金",
    ),
    "ja": (
        "小麦粉と水と塩を混ぜ、三十分ごとに生地を折りたたみ、涼しい場所で一晩発酵させてから、"
        "よく熱した鍋に入れてふたをして、皮が茶色くなるまで焼きます。",
        "茶",
        "黒",
    ),
    "th": (
        "ผสมแป้งน้ำและเกลือเข้าด้วยกันพับแป้งทุกครึ่งชั่วโมงปล่อยให้ขึ้นข้ามคืนในที่เย็นแล้วอบในหม้อร้อนที"
        "่มีฝาปิด"
        "จนเปลือกเป็นสีน้ำตาลและกรอบ",
        "เย็น",
        "ร้อน",
    ),
    "ko": (
        "밀가루와 물과 소금을 섞고 반 시간마다 반죽을 접고 서늘한 곳에서 하룻밤 부풀린 다음"
        " 아주 뜨거운 "
        "냄비에 넣고 뚜껑을 덮어 껍질이 갈색이 되고 바삭해질 때까지 천천히 굽고 식힌 뒤에 "
        "얇게 썰어 드세요",
        "갈색",
        "금색",
    ),
    "ar": (
        "اخلط الدقيق والماء والملح ثم اطو العجين كل نصف ساعة واتركه يرتفع طوال الليل في مك"
        "ان بارد ثم "
        "اخبزه في قدر ساخنة مغطاة حتى تصبح القشرة بنية ومقرمشة ثم اتركه يبرد قبل أن تقطعه "
        "إلى شرائح رقيقة",
        "بنية",
        "ذهبية",
    ),
    "hi": (
        "आटा पानी और नमक मिलाएं हर आधे घंटे में आटे को मोड़ें इसे रात भर ठंडी जगह पर फूलने "
        "दें फिर इसे बहुत गरम "
        "ढके हुए बर्तन में तब तक पकाएं जब तक पपड़ी भूरी और कुरकुरी न हो जाए और काटने से पहले"
        " ठंडा होने दें",
        "भूरी",
        "लाल",
    ),
}


def _calling(name: str, function: str, text: str = "") -> dict[str, Any]:
    asked = {"role": "user", "content": "What time is it over there in Linz, please?"}
    call = {"id": name, "type": "function", "function": {"name": function, "arguments": "{}"}}
    answer = {"role": "assistant", "content": text, "tool_calls": [call]}
    return {"id": name, "messages": [asked, answer]}


def _offering(name: str, text: str = "") -> dict[str, Any]:
    tool = {"type": "function", "function": {"name": "get_time"}}
    return {**_calling(name, "get_time", text), "tools": [tool]}


WORDS = "It is half past four, and the sun will be down before long, so make haste."


@pytest.mark.parametrize(
    "records",
    [
        [_calling("a", "get_time"), _calling("b", "clock_now")],
        [_calling("a", "get_time"), _offering("b")],
        [_calling("a", "get_time", WORDS), _offering("b", WORDS)],
        [_calling("1", "get_time"), _calling("1", "clock_now")],
        [_calling("1", "get_time"), _offering("1")],
    ],
)
def test_other_calls_or_other_tools_make_another_conversation(
    records: list[dict[str, Any]], tmp_path: Path
) -> None:
    run_clean(
        tmp_path / "out",
        write_dump(tmp_path / "dump.json", records),
        profile="none",
        rules=Rules(duplicate="drop", duplicate_id="drop", near_duplicate=0.7),
    )
    assert kept(tmp_path / "out") == [record["id"] for record in records]


def _weighted(name: str, weight: float) -> dict[str, Any]:
    record = _calling(name, "x", WORDS)
    del record["messages"][1]["tool_calls"]
    record["messages"][1]["weight"] = weight
    return record


@pytest.mark.parametrize("weights", [(0, 1), (1, 0)])
def test_an_answer_that_is_learned_does_not_go_with_one_that_is_not(
    weights: tuple[float, float], tmp_path: Path
) -> None:
    records = [_weighted(name, weight) for name, weight in zip("ab", weights, strict=True)]
    run_clean(
        tmp_path / "out",
        write_dump(tmp_path / "dump.json", records),
        profile="none",
        rules=Rules(
            duplicate="drop", duplicate_id="drop", duplicate_opening="drop", near_duplicate=0.7
        ),
    )
    assert kept(tmp_path / "out") == ["a", "b"]


def test_a_duplicate_is_set_aside_with_its_model_and_tools(tmp_path: Path) -> None:
    records = [{**_offering(name), "model": "gpt-4"} for name in "ab"]
    dump = write_dump(tmp_path / "dump.json", records)
    run_clean(tmp_path / "out", dump, profile="none", rules=Rules(duplicate="drop"))
    (row,) = rows_of(tmp_path / "out" / "dropped")
    said = orjson.loads(row["record"])
    assert said["model"] == "gpt-4" and orjson.loads(said["tools"]) == records[1]["tools"]


def test_the_ids_of_calls_make_no_other_conversation(tmp_path: Path) -> None:
    records = [_offering(name) for name in "ab"]
    dump = write_dump(tmp_path / "dump.json", records)
    run_clean(tmp_path / "out", dump, profile="none", rules=Rules(duplicate="drop"))
    assert kept(tmp_path / "out") == ["a"]


WORDLESS = [
    ("🐶🐱🐭🐹🐰🦊🐻🐼", "🍎🍐🍊🍋🍌🍉🍇🍓"),
    ("🚗🚕🚙🚌🚎🚓🚑🚒", "⚽🏀🏈⚾🎾🏐🏉🎱"),
    ("∫ ÷ √ ≤ ≥ → ← ↑", "≠ ≈ ∞ ± × ∑ ∏ ∂"),
    ("?!? ... !!! ,,, ;;;", "--- *** +++ === ///"),
    ("ok 🐶🐱🐭🐹🐰🦊🐻🐼", "ok 🍎🍐🍊🍋🍌🍉🍇🍓"),
    ("ok 🚗🚕🚙🚌🚎🚓🚑🚒", "ok ⚽🏀🏈⚾🎾🏐🏉🎱"),
]


def test_conversations_without_words_are_compared_by_their_characters(tmp_path: Path) -> None:
    records = [conversation(str(i), *texts) for i, texts in enumerate(WORDLESS)]
    question, answer = WORDLESS[0]
    records.append(conversation("near", question, answer + "🍓"))
    dump = write_dump(tmp_path / "dump.json", records)
    run_clean(tmp_path / "out", dump, profile="none", rules=Rules(near_duplicate=0.7))
    assert kept(tmp_path / "out") == ["1", "2", "3", "4", "5", "near"]
    assert dropped(tmp_path / "out")["0"][0] == "near_duplicate"
