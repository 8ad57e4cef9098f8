"""A judge that writes in another language is read, or asked once more, and never misread."""

import pytest

from apps.eval.protocols.form import Format
from apps.eval.protocols.parsing import parse


def said(fmt: Format, text: str) -> object:
    """The verdict or score that is read; None where none is."""
    parsed = parse(text, fmt, nonce="tag-1")
    if parsed.scores is None:
        return parsed.verdict
    return parsed.scores if len(parsed.scores) > 1 else parsed.scores[0]


@pytest.mark.parametrize(
    "text",
    [
        "I choose [[B]], not [[A]].",
        "My pick is [[B]] instead of [[A]].",
        "我选择[[B]]，而不是[[A]]。",
        "[[A]]ではなく[[B]]です。",
        "[[B]]を選びます。[[A]]ではありません。",
        "最終判定は[[B]]であり、Aより優れています。",
        "[[A]]가 아니라 [[B]]입니다.",
        "Выбираю [[B]], а не [[A]].",
        "Elijo [[B]], no [[A]].",
        "Escolho [[B]], não [[A]].",
        "Je choisis [[B]] et non [[A]].",
        "Ich wähle [[B]], nicht [[A]].",
        "tag-1: nicht [[A]], sondern [[B]]",
        "أختار [[B]] وليس [[A]].",
        "Tôi chọn [[B]], không phải [[A]].",
        "No.\n[[B]]",
    ],
)
def test_what_is_denied_is_no_verdict(text: str) -> None:
    assert said("letter", text) == "B"


def test_nothing_is_read_where_all_is_denied() -> None:
    assert said("letter", "It is not [[A]].") is None
    assert said("rating", "[[8]], not [[9]]") == 8


@pytest.mark.parametrize(
    "text",
    [
        "裁决：[[A]]\n（可选项：[[A]]、[[B]]或[[C]]）",
        "判定：[[A]]\n選択肢：[[A]]、[[B]]、または[[C]]",
        "판정: [[A]]\n선택: [[A]], [[B]] 또는 [[C]]",
        "Вердикт: [[A]]\nВарианты: [[A]], [[B]] или [[C]].",
        "Fallo: [[A]]\nOpciones: [[A]], [[B]] o [[C]].",
        "Veredito: [[A]]\nOpções: [[A]], [[B]] ou [[C]]",
        "Verdict : [[A]]\nChoix : [[A]], [[B]] ou [[C]].",
        "Urteil: [[A]]\nMöglich: [[A]], [[B]] oder [[C]].",
        "الحكم: [[A]]\nالخيارات: [[A]]، [[B]] أو [[C]]",
        "Phán quyết: [[A]]\nLựa chọn: [[A]], [[B]] hoặc [[C]]",
        "裁决：[[A]]\n若平局则为[[C]]。",
        "Вердикт: [[A]]\n[[C]] было бы при ничьей.",
        "Urteil: [[A]]\n[[C]] wäre ein Unentschieden.",
        *(
            "最终裁决：助手A更好",
            "胜者：A",
            "[[助手A]]",
            "最終判定：A",
            "최종 판정: A",
            "Победитель: A",
        ),
        *("Veredicto final: A", "Vencedor: A", "Gagnant : A", "Endgültiges Urteil: A"),
        *("الحكم النهائي: A", "Phán quyết cuối cùng: A", "【A】", "«A»"),
        *(
            '{"获胜者": "A"}',
            '{"вердикт": "A"}',
            '{"phán quyết": "Trợ lý A"}',
            '{"verdict": "助手A"}',
        ),
    ],
)
def test_a_verdict_is_read_in_every_language(text: str) -> None:
    assert said("letter", text) == "A"


@pytest.mark.parametrize("word", ["平局", "引き分け", "무승부", "Ничья", "Empate", "تعادل", "Hòa"])
def test_a_tie_is_one_in_every_language(word: str) -> None:
    assert said("letter", f"tag-1 [[{word}]]") == "C"


@pytest.mark.parametrize(
    "text", ["败者：A", "Verlierer: A", "Худший: A", "Perdant : A", "助手B更差", "tag-1 A不如B"]
)
def test_a_word_for_the_worse_one_is_no_verdict(text: str) -> None:
    assert said("letter", text) is None


@pytest.mark.parametrize(
    ("text", "score"),
    [
        *(("Rating: ٨٫٥", 8.5), ("tag-1 ٨٫٥", 8.5), ("[[۸٫۵]]", 8.5), ("tag-1 ٨/١٠", 8)),
        *(("评分：8分（满分10分）", 8), ("tag-1 [[8分]]", 8), ("評価：8点", 8), ("점수: 8점", 8)),
        *(("Итоговая оценка: 8,5", 8.5), ("Оценка: 8 из 10", 8), ("Оценка: 8 баллов", 8)),
        *(("Puntuación final: 8,5/10", 8.5), ("Nota: 8 de 10", 8), ("Note finale : 8", 8)),
        *(("Bewertung: 8 von 10", 8), ("الدرجة: ٨ من ١٠", 8), ("Điểm số: 8", 8)),
        *(('{"评分": 8}', 8), ('{"оценка": "8,5"}', 8.5), ('{"rating": "8/10"}', 8)),
        *(("Rating: **8**/10", 8), ("Rating: 8 points out of 10", 8)),
        # another scale
        *(("Rating: 4 из 5", None), ("Rating: 4 von 5", None), ("tag-1 4 de 5", None)),
        *(("Rating: 4 sur 5", None), ("Rating: 4 من 5", None), ("Rating: 4（满分5分）", None)),
        *(("Rating: 4 (max. 5)", None), ('{"rating": "4/5"}', None)),
        # a range
        *(("tag-1 8 bis 9", None), ("tag-1 8 à 9", None), ("tag-1 8～9", None)),
        *(("Rating: 8—9", None), ("Rating: 8 a 9", None), ("Rating: 8·5", None)),
        # a remark, not a rating
        *(("[[7]]\nNota: 3 errores graves.", 7), ("tag-1 Note: 3 mistakes.\n[[7]]", 7)),
        *(("[[7]]\n\nNote: 1", 7), ("Rating: 7\n\nNota: 2", 7), ("Rating: 8 — 2 small errors", 8)),
        ('{"оценка": 8, "балл": 9}', None),
    ],
)
def test_a_rating_is_read_in_every_language_or_not_at_all(text: str, score: float | None) -> None:
    assert said("rating", text) == score


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        *(("8,5 7,5\nx", (8.5, 7.5)), ("9 8,5\nx", (9, 8.5)), ("8,5; 7\nx", (8.5, 7))),
        *(("9,8\nx", (9, 8)), ("9,8,5\nx", None), ("٨٫٥ ٧\nx", (8.5, 7)), ("8、7\nx", (8, 7))),
        *(("8分 7分\nx", (8, 7)), ("8 и 7\nx", (8, 7)), ("8 or 7\nx", None)),
        ("Assistant 1: 8,5\nAssistant 2: 7,5", (8.5, 7.5)),
        ("助手1：8分\n助手2：7分", (8, 7)),
        ("Ассистент 1: 8\nАссистент 2: 7", (8, 7)),
        ("Trợ lý 1: 8\nTrợ lý 2: 7", (8, 7)),
        ("Assistent 1 (8,5)\nAssistent 2 (7,5)", None),
        ("Asistente 1 (8,5). Asistente 2 (7).", None),
        ("Шкала: (1, 10)", None),
        ('{"scores": ["8,5", "7"]}', (8.5, 7)),
        ('{"助手1": 8, "助手2": 7}', (8, 7)),
        ('{"a": 8, "b": 7, "1": 3}', None),
    ],
)
def test_two_scores_are_read_in_every_language_or_not_at_all(text: str, scores: object) -> None:
    assert said("scores", text) == scores


@pytest.mark.parametrize("fmt", ["rating", "scores", "letter", "label"])
@pytest.mark.parametrize("blank", [" ", "\n", "\u3000"])
def test_a_judge_that_fell_into_writing_blanks_holds_up_nobody(fmt: Format, blank: str) -> None:
    assert said(fmt, f"tag-1{blank * 200_000}x") is None
