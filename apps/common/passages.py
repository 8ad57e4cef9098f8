"""Passages of training data in one file, found by the words that they share with a text.

    with write_passages("passages.db", made_of=pack.digest) as writer:   # apps.data index
        writer.add(Passage(conversation="abc", turn=2, role="assistant", text="..."))
    open_passages("passages.db").sharing("an answer")                    # the web page

An SQLite file: `passages` has the texts, `fingerprints` says which passages hold which hash, and
where (text/shared_runs.py). A look-up reads one posting list for each fingerprint of the text. It
takes the passages in which they follow one another as in the text, and compares the best word by
word.
"""

import contextlib
import heapq
import sqlite3
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import repeat
from urllib.parse import quote

from apps.common.errors import CorruptError, NotFoundError, StorageError
from apps.common.files import storage
from apps.common.text.shared_runs import GRAM, MIN_RUN, WINDOW, fingerprints, run_lengths
from apps.common.text.words import WordSpan, num_words, word_spans, words

_FORMAT = f"1, grams of {GRAM}, windows of {WINDOW}"
_SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE passages (
    number INTEGER PRIMARY KEY, conversation TEXT NOT NULL, turn INTEGER NOT NULL,
    role TEXT NOT NULL, text TEXT NOT NULL
);
CREATE TABLE fingerprints (
    hash INTEGER, passage INTEGER, place INTEGER, PRIMARY KEY (hash, passage, place)
) WITHOUT ROWID;
CREATE TABLE work.fingerprints (hash INTEGER, passage INTEGER, place INTEGER);
"""
_BUILD = """
INSERT INTO fingerprints SELECT * FROM work.fingerprints ORDER BY hash, passage, place
"""
_MAX_POSTINGS = 200
"""of one fingerprint: what more passages hold is a common phrase"""
_MAX_COMPARED = 16
"""passages that are read and compared word by word; as many again that hold a rare hash"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """A message of the training data, or a piece of a long one; the text is in NFC."""

    conversation: str
    """its id"""
    turn: int
    """of the conversation's messages, from 1"""
    role: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedPassage:
    """A passage and what of it the text has too, as ranges of its characters."""

    passage: Passage
    num_words: int
    """of the longest run, as a reader counts them"""
    longest: tuple[int, int]
    runs: tuple[tuple[int, int], ...]
    """all of MIN_RUN words or more; overlapping ones as one"""


class PassageWriter:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.num_passages = self.num_fingerprints = 0

    def add(self, passage: Passage) -> None:
        """One of fewer than MIN_RUN words shares no run with anything, and is left out."""
        hashes, places = fingerprints(words(passage.text))
        if not len(hashes):
            return
        self.num_passages += 1
        self.num_fingerprints += len(hashes)
        row = (passage.conversation, passage.turn, passage.role, passage.text)
        self._connection.execute(
            "INSERT INTO passages VALUES (?, ?, ?, ?, ?)", (self.num_passages, *row)
        )
        self._connection.executemany(
            "INSERT INTO work.fingerprints VALUES (?, ?, ?)",
            zip(hashes.tolist(), repeat(self.num_passages), places.tolist(), strict=False),
        )


@contextlib.contextmanager
def write_passages(path: str, made_of: str = "") -> Generator[PassageWriter]:
    """A file that appears when the block ends without an error; `made_of` is a pack's digest.

    Raises StorageError, and InputError for a path that is not local.
    """
    path = storage.local_path(path)
    with storage.atomic_file(path) as handle, _errors_of_writing(path):
        work = f"{handle.name}.work"
        try:
            with contextlib.closing(sqlite3.connect(handle.name, isolation_level=None)) as target:
                target.execute("ATTACH ? AS work", (work,))
                for name in ("main", "work"):  # a run that is cut leaves no file at all
                    target.execute(f"PRAGMA {name}.journal_mode=OFF")
                    target.execute(f"PRAGMA {name}.synchronous=OFF")
                target.executescript(_SCHEMA)
                target.execute("BEGIN")
                writer = PassageWriter(target)
                yield writer
                about = {"format": _FORMAT, "made_of": made_of}
                target.executemany("INSERT INTO about VALUES (?, ?)", about.items())
                target.execute(_BUILD)
                target.execute("COMMIT")
        finally:
            storage.remove_tree(work)


class Passages:
    """A file that each look-up opens anew, so several threads may."""

    def __init__(self, path: str, made_of: str) -> None:
        self.path, self.made_of = path, made_of

    def sharing(self, text: str, limit: int = 5) -> list[SharedPassage]:
        """The passages that share the longest runs of at least MIN_RUN words, longest first.

        Each message once, and equal texts once. A run that more than 200 passages hold word for
        word may be shown from others of them. Raises CorruptError.
        """
        spoken = words(text)
        with _reading(self.path) as connection:
            numbers = _candidates(connection, spoken)
            read = [_read(connection, number) for number in numbers]
        shared = [one for passage in read if (one := _compared(spoken, passage)) is not None]
        shared.sort(key=lambda one: -one.num_words)
        return _without_repeats(shared)[:limit]


def open_passages(path: str) -> Passages:
    """Raises NotFoundError, or CorruptError for anything else than a file of `write_passages`."""
    with _reading(path) as connection:
        about = dict(connection.execute("SELECT name, value FROM about"))
    if about.get("format") != _FORMAT:
        raise CorruptError(
            f"{path} has the format {about.get('format')!r}, expected {_FORMAT!r}; make it again "
            "with `python -m apps.data index`."
        )
    return Passages(path, str(about.get("made_of", "")))


def _candidates(connection: sqlite3.Connection, spoken: Sequence[str]) -> list[int]:
    """Numbers of the passages with the longest runs, told by fingerprints alone.

    In a shared run they stand as far apart as in the text: place minus place is the same for all.
    Kept ones are never more than WINDOW apart, so a wider gap ends a run. Where a run holds common
    phrases, some of its postings may be unread; a rare hash in it leads there all the same.
    """
    runs: dict[tuple[int, int], tuple[int, int]] = {}
    """{(passage, its place minus ours): (our places of the run's first and last fingerprint)}"""
    longest: dict[int, int] = {}
    rare: set[int] = set()
    prints = fingerprints(spoken)
    query = "SELECT passage, place FROM fingerprints WHERE hash = ? LIMIT ?"
    for fingerprint, ours in zip(prints.hashes.tolist(), prints.places.tolist(), strict=True):
        postings = connection.execute(query, (fingerprint, _MAX_POSTINGS)).fetchall()
        if len(postings) < _MAX_POSTINGS:
            rare.update(passage for passage, _ in postings)
        for passage, theirs in postings:
            first, last = runs.get((passage, theirs - ours), (ours, ours))
            first = first if ours - last <= WINDOW else ours
            runs[passage, theirs - ours] = first, ours
            longest[passage] = max(longest.get(passage, 0), ours - first + GRAM)
    best = [
        heapq.nsmallest(_MAX_COMPARED, group, key=lambda number: (-longest[number], number))
        for group in (longest, rare)
    ]
    return list(dict.fromkeys([*best[0], *best[1]]))


def _read(connection: sqlite3.Connection, number: int) -> Passage:
    query = "SELECT conversation, turn, role, text FROM passages WHERE number = ?"
    conversation, turn, role, text = connection.execute(query, (number,)).fetchone()
    return Passage(conversation=conversation, turn=turn, role=role, text=text)


def _compared(spoken: Sequence[str], passage: Passage) -> SharedPassage | None:
    """None where the longest run has fewer than MIN_RUN words: hashes may meet by chance."""
    spans = word_spans(passage.text)
    lengths = run_lengths(spoken, [span.word for span in spans])
    last = int(lengths.argmax())
    if lengths[last] < MIN_RUN:
        return None
    start, end = _range(spans, last, int(lengths[last]))
    runs: list[tuple[int, int]] = []
    for at in (lengths >= MIN_RUN).nonzero()[0].tolist():
        begin, stop = _range(spans, at, int(lengths[at]))
        while runs and runs[-1][1] >= begin:
            begin = min(begin, runs.pop()[0])
        runs.append((begin, stop))
    return SharedPassage(
        passage=passage,
        num_words=num_words(passage.text[start:end]),
        longest=(start, end),
        runs=tuple(runs),
    )


def _range(spans: Sequence[WordSpan], last: int, length: int) -> tuple[int, int]:
    """Of the characters of `length` words that end with word `last`."""
    return spans[last - length + 1].start, spans[last].end


def _without_repeats(shared: Sequence[SharedPassage]) -> list[SharedPassage]:
    seen: set[object] = set()
    kept: list[SharedPassage] = []
    for one in shared:
        own = {(one.passage.conversation, one.passage.turn), one.passage.text}
        if not own & seen:
            kept.append(one)
        seen |= own
    return kept


@contextlib.contextmanager
def _reading(path: str) -> Generator[sqlite3.Connection]:
    local = storage.local_path(path)
    if not storage.exists(local):
        raise NotFoundError(f"{path} does not exist; make it with `python -m apps.data index`.")
    uri = f"file:{quote(local)}?mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            yield connection
    except (sqlite3.Error, TypeError) as error:  # TypeError: of a row that is missing
        raise CorruptError(
            f"{path} is no index of passages ({error}); make it with `python -m apps.data index`."
        ) from error


@contextlib.contextmanager
def _errors_of_writing(path: str) -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(
            f"{path} could not be written ({error}); free space beside it and in the folder for "
            "temporary files (TMPDIR), and run again."
        ) from error
