"""What conversations are compared by: digests of their messages, and MinHash signatures.

A conversation of three messages has their digests a, b and c, and the prefix digests h(a), h(ab)
and h(abc). It is the beginning of another one when its last digest is among the other's; that is a
search in a sorted array, however many conversations there are.

A MinHash signature has one number for each of 128 permutations: the smallest hash of the text's
shingles. The share of numbers that two signatures have in common estimates the Jaccard similarity
of their shingles (Broder 1997). To find pairs without comparing all, 4 numbers at a time make a
band; texts of similarity s share at least one of 32 bands with probability 1 - (1 - s^4)^32:

    s = .3   .23      s = .5   .87      s = .8   1 - 5e-8
"""

# pyarrow and rensa are partly unknown:
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson
import pyarrow as pa
from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue]

from apps.common.files import storage
from apps.common.text.words import num_words, words
from apps.data.read.record.layout import Turn
from apps.data.read.records import Record
from apps.data.rules.profiles import Rules
from apps.data.write import tables

MIN_OPENING_WORDS = 30
"""Words of a first round that can mean something: a greeting and its answer have 10, a plain
question and its answer 15, and people who never met share both."""
_OPENING_CHARS = 400
"""Of a text, for its words: enough to know that there are 30."""
SHINGLE_WORDS = 5
NUM_PERMUTATIONS = 128
NUM_BANDS = 32
BANDS_READ = 8
"""Bands in one column, and so in memory at a time."""
BANDS = [f"bands_{i:02d}" for i in range(0, NUM_BANDS, BANDS_READ)]
_SEED = 42
_CODE_MARKS = b"`~{}()[]<>=_#/\\|;$\t"
"""What may be code: there an `A` is no `a`, and two blanks are not one."""
_FOLDED = bytes(
    ord(" ") if chr(code).isspace() else ord(chr(code).lower()) for code in range(128)
) + bytes(128)
"""`str.casefold` of ASCII, with one kind of blank."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    """What the rules need of a conversation; the rest is empty."""

    id: str
    source_key: int
    """the source's id in its file; 0 for none"""
    prefixes: list[int]
    """digests of the conversation up to each message"""
    digests: list[int]
    """those of each message, and of the functions that the model could call"""
    opening: int
    """that of the first round; 0 where it is too short to mean anything"""
    chars: int
    messages: int
    bytes: int
    signature: list[int]


def schema_of(rules: Rules) -> pa.Schema:
    fields = [
        pa.field("id", pa.string()),
        pa.field("source_key", pa.uint64()),
        pa.field("prefixes", pa.list_(pa.uint64())),
        pa.field("digests", pa.list_(pa.uint64())),
        pa.field("opening", pa.uint64()),
        pa.field("chars", pa.int64()),
        pa.field("messages", pa.int64()),
        pa.field("bytes", pa.int64()),
    ]
    if rules.near_duplicate:
        fields.append(pa.field("signature", pa.binary(2 * NUM_PERMUTATIONS)))
        fields += [pa.field(name, pa.binary(8 * BANDS_READ)) for name in BANDS]
    return pa.schema(fields)


def table_of(rows: Sequence[Keys], rules: Rules) -> pa.Table:
    schema = schema_of(rules)
    names = (name for name in schema.names if name not in ("signature", *BANDS))
    columns: dict[str, list[object] | pa.Array] = {
        name: [getattr(row, name) for row in rows] for name in names
    }
    if rules.near_duplicate:
        columns |= _signature_columns(np.array([row.signature for row in rows], dtype=np.uint64))
    return pa.table(columns, schema=schema)


def _signature_columns(signatures: np.ndarray) -> dict[str, pa.Array]:
    """Of [rows, permutations]: the low bits, and a mixed value of each band."""
    bands = signatures.reshape(len(signatures), NUM_BANDS, -1)
    mixed = np.zeros(bands.shape[:2], dtype=np.uint64)
    for i in range(bands.shape[2]):
        mixed = (mixed ^ bands[:, :, i]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    groups = np.split(mixed.astype("<u8"), len(BANDS), axis=1)
    low_bits = (signatures & np.uint64(0xFFFF)).astype("<u2")
    named = {"signature": low_bits, **dict(zip(BANDS, groups, strict=True))}
    return {name: _fixed_binary(values) for name, values in named.items()}


def _fixed_binary(values: np.ndarray) -> pa.Array:
    """A row's bytes as one value."""
    kind = pa.binary(values.shape[1] * values.itemsize)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values.tobytes())])


def of(record: Record, rules: Rules, *, messages: int, num_bytes: int) -> Keys:
    """`messages` and `num_bytes` are the sizes that the ledger knows."""
    needs_all = rules.duplicate == "drop"
    needs_digests = rules.duplicate_id == "drop" and bool(record.source_id)
    needs_opening = rules.duplicate_opening == "drop"
    offered = _offered(record)
    running = hashlib.blake2b(offered, digest_size=8)
    prefixes: list[int] = []
    digests = [_number(offered)] if offered and needs_digests else []
    opening, num_opening_words = 0, 0
    for turn in record.turns:
        if not (needs_all or needs_digests or needs_opening):
            break
        said = b"%b\0%b\0%b" % (turn.role.encode(), normalized(turn.text), _called(turn))
        if not turn.is_learned:  # the same answer, where it is learned, would be lost with it
            said += b"\0-"
        digest = hashlib.blake2b(said, digest_size=8).digest()
        running.update(digest)
        if needs_all:
            prefixes.append(int.from_bytes(running.digest(), "little"))
        if needs_digests:
            digests.append(int.from_bytes(digest, "little"))
        if needs_opening and turn.role in ("user", "assistant"):
            num_opening_words += num_words(turn.text[:_OPENING_CHARS])
            if turn.role == "assistant":
                needs_opening = False
                if num_opening_words >= MIN_OPENING_WORDS:
                    opening = int.from_bytes(running.digest(), "little")
    file_digest = record.id.rpartition("-")[0]
    return Keys(
        id=record.id,
        source_key=_key(f"{file_digest}\0{record.source_id}") if needs_digests else 0,
        prefixes=prefixes,
        digests=digests,
        opening=opening,
        chars=sum(len(turn.text) for turn in record.turns),
        messages=messages,
        bytes=num_bytes,
        signature=_signature(record) if rules.near_duplicate else [],
    )


def normalized(text: str) -> bytes:
    """What two texts must have in common to be equal, in UTF-8.

    Characters have one form (NFC) and lines no blanks at their ends. Prose has one case and one
    kind of blank too: "what  is it?" is "What is it?". Where anything looks like code the text
    counts to the letter: `x = A` is not `x = a`.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    raw = text.encode("utf-8", "surrogatepass")
    if not _looks_like_code(raw):
        if raw.isascii():
            return _with_single_blanks(raw.translate(_FOLDED))
        return " ".join(text.casefold().split()).encode("utf-8", "surrogatepass")
    if " \n" in text or "\t\n" in text or "\r\n" in text:
        text = "\n".join([line.rstrip(" \t\r") for line in text.split("\n")])
    return text.strip().encode("utf-8", "surrogatepass")


def _looks_like_code(raw: bytes) -> bool:
    """Whether it has a mark of code, or two blanks at the beginning of a line."""
    return (
        len(raw.translate(None, _CODE_MARKS)) < len(raw) or b"\n  " in raw or raw.startswith(b"  ")
    )


def _with_single_blanks(raw: bytes) -> bytes:
    while b"  " in raw:
        raw = raw.replace(b"  ", b" ")
    return raw.strip(b" ")


def _key(text: str) -> int:
    return _number(text.encode("utf-8", "surrogatepass"))


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _offered(record: Record) -> bytes:
    """The functions that the model could call: with others it is another conversation."""
    return (record.tools or "").encode("utf-8", "surrogatepass")


def _called(turn: Turn) -> bytes:
    """Names and arguments of a turn's calls, without their ids, which are by chance."""
    if turn.tool_calls is None:
        return b""
    functions = [call["function"] for call in orjson.loads(turn.tool_calls)]
    return orjson.dumps(functions, option=orjson.OPT_SORT_KEYS)


def _functions(record: Record) -> bytes:
    """Those that could be called, and the names of those that were: with others nothing is near.

    Nor is what is learned near to what is not.
    """
    calls = [turn.tool_calls for turn in record.turns if turn.tool_calls is not None]
    names = [call["function"]["name"] for made in calls for call in orjson.loads(made)]
    learned = bytes(turn.is_learned for turn in record.turns)
    marks = learned if 0 in learned else b""
    return _offered(record) + (orjson.dumps(names) if names else b"") + marks


def _signature(record: Record) -> list[int]:
    spoken = [word for turn in record.turns for word in _spoken(turn)]
    runs = [spoken[i:] for i in range(SHINGLE_WORDS)]
    shingles = list(map(" ".join, zip(*runs, strict=False))) or [" ".join(spoken)]
    if functions := _functions(record):
        mark = f"{_number(functions):x} "
        shingles = [mark + shingle for shingle in shingles]
    hashed = RMinHash(num_perm=NUM_PERMUTATIONS, seed=_SEED)
    hashed.update(shingles)
    return hashed.digest()


def _spoken(turn: Turn) -> list[str]:
    """The words of a turn and of its calls; the characters of what is hardly words.

    "Hi there!"  ->  hi, there        "∫ ÷ √"  ->  ∫, ÷, √
    """
    found = words(turn.text)
    if 2 * sum(map(len, found)) < len(turn.text):
        text = "".join(turn.text.split())
        if 2 * sum(map(len, found)) < len(text):
            found = list(text)
    return found + words(_called(turn).decode())


class KeyTable:
    """The keys of all ranges, column by column, as one long table in input order."""

    def __init__(self, folders: list[str]) -> None:
        self._folders = folders

    def numbers(self, name: str) -> np.ndarray:
        columns = [self._read(folder, name).to_numpy() for folder in self._folders]
        return np.concatenate(columns) if columns else np.zeros(0, dtype=np.uint64)

    def prefixes(self) -> tuple[np.ndarray, np.ndarray]:
        """All prefix digests, and how many each row has."""
        parts = [self._read(folder, "prefixes") for folder in self._folders]
        if not parts:
            return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
        values = np.concatenate([part.flatten().to_numpy() for part in parts])
        counts = np.concatenate([np.diff(part.offsets.to_numpy()) for part in parts])
        return values, counts.astype(np.int64)

    def messages(self, rows: np.ndarray, starts: np.ndarray) -> dict[int, frozenset[int]]:
        """The digests of the messages of some rows only."""
        chosen: dict[int, frozenset[int]] = {}
        for i, folder in enumerate(self._folders):
            own = rows[(rows >= starts[i]) & (rows < starts[i + 1])]
            if len(own):
                lists = self._read(folder, "digests").take(pa.array(own - starts[i])).to_pylist()
                chosen |= dict(zip(own.tolist(), map(frozenset, lists), strict=True))
        return chosen

    def bands(self, name: str) -> np.ndarray:
        """[rows, bands] of one column of bands."""
        raw = b"".join(_bytes(self._read(folder, name)) for folder in self._folders)
        return np.frombuffer(raw, dtype="<u8").reshape(-1, BANDS_READ)

    def signatures(self, rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """[rows, permutations] of some rows only."""
        chosen = np.empty((len(rows), NUM_PERMUTATIONS), dtype="<u2")
        for i, folder in enumerate(self._folders):
            own = np.flatnonzero((rows >= starts[i]) & (rows < starts[i + 1]))
            if len(own):
                column = self._read(folder, "signature").take(pa.array(rows[own] - starts[i]))
                chosen[own] = np.frombuffer(_bytes(column), dtype="<u2").reshape(len(own), -1)
        return chosen

    def _read(self, folder: str, name: str) -> pa.Array:
        table = tables.read(storage.join(folder, "keys.parquet"), [name])
        return table[name].combine_chunks()


def _bytes(column: pa.Array) -> bytes:
    """All values of a column of fixed size, end to end."""
    start, width = column.offset, column.type.byte_width
    return column.buffers()[1][start * width : (start + len(column)) * width].to_pybytes()
