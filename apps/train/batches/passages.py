"""Plain text to pre-train on: files and folders of passages, one a line."""

import codecs
import json
from collections.abc import Iterable, Iterator

from apps.common.errors import InputError, NotFoundError
from apps.common.files import storage

_JSON_LINES = (".jsonl", ".ndjson")


def text_files(sources: Iterable[str]) -> list[str]:
    """Files of the given files and folders, sorted within a folder."""
    files: list[str] = []
    for uri in sources:
        if storage.is_dir(uri):
            files += [storage.join(uri, name) for name in storage.list_dir(uri)]
        elif storage.exists(uri):
            files.append(uri)
        else:
            raise NotFoundError(f"Text file {uri} does not exist; expected a file or folder.")
    return files


def read_passages(sources: Iterable[str]) -> Iterator[str]:
    """One passage a line; of .jsonl files the field `text`."""
    for uri in text_files(sources):
        lines = storage.read_bytes(uri).removeprefix(codecs.BOM_UTF8).splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                text = _passage(line, is_json=uri.lower().endswith(_JSON_LINES))
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"Line {number} of {uri} cannot be read ({error!r}); expected UTF-8 text, or "
                    'in .jsonl files an object {"text": "..."} a line.'
                ) from error
            if text.strip():
                yield text


def _passage(line: bytes, *, is_json: bool) -> str:
    text = line.decode("utf-8")
    if not is_json or not text.strip():
        return text
    passage = json.loads(text)["text"]
    if not isinstance(passage, str):
        raise TypeError(f"its text is {passage!r:.40}")
    passage.encode()  # half of a character that JSON escapes, such as \\ud83d, is no text
    return passage
