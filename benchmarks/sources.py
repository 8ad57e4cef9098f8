"""How long "Where did this come from?" takes in a large index of training data.

    python -m benchmarks.sources                           # 100,000 conversations, five minutes

Makes conversations of words drawn as in a natural language (Zipf), a fifth of them with one of a
few phrases that all assistants say. Indexes them, and looks up answers of four kinds. Beside it
stands what SQLite's own full-text search takes for the same: FTS5, one phrase query for every eight
words in a row of the answer.
"""

import argparse
import contextlib
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from apps.common.passages import Passage, open_passages, write_passages
from apps.common.text.shared_runs import MIN_RUN
from apps.common.text.words import words
from benchmarks.results import save

QUESTION_WORDS, ANSWER_WORDS, COMMON_WORDS = 20, 300, 20
ROUNDS = 40


class Language:
    """Words with the frequencies of a natural language."""

    def __init__(self) -> None:
        self._draw = np.random.default_rng(0)
        self._words = np.array([f"w{n}" for n in range(50_000)])
        shares = 1 / (np.arange(50_000) + 3)
        self._edges = np.cumsum(shares / shares.sum())
        self.common = [self.text(COMMON_WORDS) for _ in range(5)]

    def text(self, num_words: int) -> str:
        return " ".join(self._words[np.searchsorted(self._edges, self._draw.random(num_words))])

    def passages(self, num_conversations: int) -> Iterator[Passage]:
        for number in range(num_conversations):
            answer = self.text(ANSWER_WORDS)
            if number % 5 == 0:
                answer = f"{self.common[number // 5 % 5]} {answer}"
            for turn, text in enumerate((self.text(QUESTION_WORDS), answer), 1):
                role = "user" if turn == 1 else "assistant"
                yield Passage(conversation=f"c{number}", turn=turn, role=role, text=text)


def answers(language: Language, kept: list[str]) -> dict[str, list[str]]:
    """`kept`: texts of the training data to quote from."""

    def quoting(text: str, num_words: int) -> str:
        quote = " ".join(text.split()[40 : 40 + num_words])
        return f"{language.text(150)} {quote} {language.text(150)}"

    return {
        "30 words quoted": [quoting(text, 30) for text in kept],
        "nothing quoted": [language.text(330) for _ in kept],
        "common phrases": [" ".join(language.common) for _ in kept],
        "3,000 words, 10 quotes": [
            " ".join(quoting(kept[(n + i) % len(kept)], 30)[:1500] for i in range(10))
            for n in range(len(kept))
        ],
    }


def times_ms(look: Callable[[str], int], texts: list[str]) -> dict[str, float]:
    taken: list[float] = []
    num_found = 0
    for text in texts:
        start_s = time.perf_counter()
        num_found += look(text)
        taken.append(1000 * (time.perf_counter() - start_s))
    found = num_found / len(texts)
    return {"median_ms": statistics.median(taken), "max_ms": max(taken), "passages": found}


def by_phrases(connection: sqlite3.Connection, text: str) -> int:
    spoken = words(text)
    found: set[int] = set()
    query = "SELECT rowid FROM texts WHERE texts MATCH ? LIMIT 200"
    for start in range(len(spoken) - MIN_RUN + 1):
        phrase = f'"{" ".join(spoken[start : start + MIN_RUN])}"'
        found |= {row[0] for row in connection.execute(query, (phrase,))}
    return len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--conversations", type=int, default=100_000)
    parser.add_argument("--fts5", action="store_true", help="build and ask FTS5 as well")
    given = parser.parse_args()
    language = Language()
    kept: list[str] = []
    result: dict[str, object] = {"conversations": given.conversations}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = Path(folder) / "passages.db"
        phrases = stack.enter_context(contextlib.closing(sqlite3.connect(f"{folder}/fts5.db")))
        phrases.execute("CREATE VIRTUAL TABLE texts USING fts5(text, content='')")
        num_bytes, fts5_s, start_s = 0, 0.0, time.perf_counter()
        with write_passages(str(path)) as writer:
            for passage in language.passages(given.conversations):
                num_bytes += len(passage.text)
                writer.add(passage)
                if passage.turn == 2 and len(kept) < ROUNDS:
                    kept.append(passage.text)
                if given.fts5:
                    before_s = time.perf_counter()
                    phrases.execute("INSERT INTO texts (text) VALUES (?)", (passage.text,))
                    fts5_s += time.perf_counter() - before_s
        built_s = time.perf_counter() - start_s - fts5_s
        result |= {"text_mb": num_bytes / 1e6, "index_mb": path.stat().st_size / 1e6,
                   "fingerprints": writer.num_fingerprints, "built_s": built_s}  # fmt: skip
        print(result, flush=True)
        passages = open_passages(str(path))
        for kind, texts in answers(language, kept).items():
            figures = {"winnowing": times_ms(lambda text: len(passages.sharing(text)), texts)}
            if given.fts5:
                figures["fts5"] = times_ms(lambda text: by_phrases(phrases, text), texts[:8])
            result[kind] = figures
            print(kind, figures, flush=True)
    save("sources", result)


if __name__ == "__main__":
    main()
