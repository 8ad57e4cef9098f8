"""`python -m apps.data index`: which passages of the training data hold which runs of words.

    python -m apps.data index pack --out passages.db
    python -m apps.data index clean --out passages.db

Reads clean conversations; a pack leads to those that it was made of. Writes one SQLite file of
apps/common/passages.py, with which the web page answers "Where did this come from?".
"""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from apps.common import packs
from apps.common.command.events import Reporter
from apps.common.errors import InputError
from apps.common.files import config as configs
from apps.common.files import storage
from apps.common.files.schema import LEDGER_NAME, LINEAGE_NAME, PACK_NAME
from apps.common.json_value import JsonObject
from apps.common.passages import Passage, write_passages
from apps.common.text.conversation import Message
from apps.common.text.shared_runs import MIN_RUN
from apps.data.config import IndexConfig, PackConfig
from apps.data.packing.identity import read_identity
from apps.data.packing.mix import Source, find_source, find_sources
from apps.data.packing.tokenize import Read, draw, read_groups, split_of

_SQLITE = b"SQLite format 3\0"
_PIECE_CHARS, _OVERLAP_CHARS = 4_000, 400
"""of a long message; a run of up to 400 characters at the end of one piece is whole in the next"""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingData:
    """Clean folders, and what of them a model has seen."""

    sources: tuple[Source, ...]
    val_percent: float = 0.0
    identity: tuple[tuple[Message, ...], ...] = ()
    pack_digest: str = ""

    @property
    def num_conversations(self) -> int:
        rows = (sum(file.group_rows) for source in self.sources for file in source.files)
        return sum(rows) + len(self.identity)

    def conversations(self) -> Iterator[tuple[Read, bool]]:
        """All of them, and whether each one is trained on."""
        for source in self.sources:
            for file in source.files:
                for groups in file.units():
                    for batch in read_groups(groups):
                        for read in batch:
                            yield read, self._is_trained_on(read, source.weight)
        for number, messages in enumerate(self.identity):
            yield Read(f"identity-{number}", f"identity-{number}", messages), True

    def _is_trained_on(self, read: Read, weight: float) -> bool:
        return split_of(read.source_id, self.val_percent) == "train" and draw(read.id) < weight


def write_index(config: IndexConfig, reporter: Reporter) -> None:
    folder = os.path.dirname(storage.local_path(config.out))
    storage.claim(folder, "the parent folder of --out")
    _check_out(config.out)
    data = training_data(config.inputs)
    progress = reporter.progress("index", total=data.num_conversations, unit="conversations")
    with write_passages(config.out, data.pack_digest) as writer, progress as bar:
        for read, is_trained_on in data.conversations():
            for passage in _passages(read) if is_trained_on else ():
                writer.add(passage)
            bar.advance()
        if not writer.num_passages:
            raise InputError(
                f"{', '.join(config.inputs)} has no message of {MIN_RUN} words or more that is "
                "trained on, so there is nothing to index."
            )
    reporter.event(
        "index.done",
        out=config.out,
        conversations=data.num_conversations,
        passages=writer.num_passages,
        fingerprints=writer.num_fingerprints,
        megabytes=round(storage.size_bytes(config.out) / 1e6, 1),
    )


def _check_out(uri: str) -> None:
    """Raises InputError for a file that is something else, which would be lost."""
    if not storage.exists(uri) or storage.is_dir(uri):
        return
    if storage.read_range(uri, 0, len(_SQLITE)) not in (_SQLITE, b""):
        raise InputError(f"--out {uri} is there and no index; name another file, or remove it.")


def training_data(inputs: Sequence[str]) -> TrainingData:
    """Of a pack what it trains on; of clean folders everything. Raises InputError."""
    is_pack = [storage.exists(storage.join(uri, PACK_NAME)) for uri in inputs]
    if not any(is_pack):
        return TrainingData(sources=find_sources(inputs))
    if len(inputs) > 1:
        raise InputError(
            f"{', '.join(inputs)}: expected one pack alone, or folders made by `clean`; a model is "
            "trained on one pack."
        )
    return _of_pack(inputs[0])


def _of_pack(uri: str) -> TrainingData:
    """What its folder says that it was made of, which must still be what it was."""
    info = packs.open_pack(uri).info
    _check_told(uri)
    made = configs.load(PackConfig, storage.join(uri, configs.RESOLVED_NAME))
    ledger: JsonObject = storage.read_json(storage.join(uri, LEDGER_NAME))
    record: JsonObject = storage.read_json(storage.join(uri, LINEAGE_NAME))
    mix, known = ledger["mix"], record["inputs"]
    assert isinstance(mix, dict) and isinstance(known, dict)  # written by pack itself
    sources = tuple(find_source(folder, float(str(weight))) for folder, weight in mix.items())
    files = {file.uri: file.blake2b for source in sources for file in source.files}
    if not files.items() <= known.items():
        raise InputError(
            f"{', '.join(mix)} has changed since {uri} was made of it; make the pack again, or "
            "index the folder itself."
        )
    identity: list[tuple[Message, ...]] = []
    if made.identity is not None:
        identity = read_identity(made.identity, made.identity_name, made.identity_makers)
    return TrainingData(
        sources=sources,
        val_percent=made.val_percent,
        identity=tuple(identity),
        pack_digest=info.digest,
    )


def _check_told(uri: str) -> None:
    for name in (configs.RESOLVED_NAME, LEDGER_NAME, LINEAGE_NAME):
        if not storage.exists(storage.join(uri, name)):
            raise InputError(
                f"{uri} has no {name}, which says what it was made of; index the folders made by "
                "`clean` that it was made of."
            )


def _passages(read: Read) -> Iterator[Passage]:
    for turn, message in enumerate(read.messages, 1):
        for text in _pieces(unicodedata.normalize("NFC", message.content)):
            yield Passage(conversation=read.id, turn=turn, role=message.role, text=text)


def _pieces(text: str) -> Iterator[str]:
    """`_pieces` of 7,000 characters are the first 4,000 and those from 3,600 on."""
    for start in range(0, max(1, len(text) - _OVERLAP_CHARS), _PIECE_CHARS - _OVERLAP_CHARS):
        yield text[start : start + _PIECE_CHARS]
