"""Three conversations, and how each layout and each kind of file writes them down."""

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

Said = list[tuple[str, str]]
Rows = list[dict[str, Any]]

TALKS: list[Said] = [
    [("user", "What floats?"), ("assistant", "Cork, for one: `a < b`.")],
    [
        ("user", "Nenne einen Fluss."),
        ("assistant", "Die Donau, größer als die Enns."),
        ("user", "Und noch einen?"),
        ("assistant", 'Der "Inn", sagt man.'),
    ],
    [("user", "Say it in\ntwo lines, please."), ("assistant", "One,\ntwo.")],
]
ROUNDS = [talk[:2] for talk in TALKS]
"""For layouts that hold one round."""


def named(talk: Said, who: str, what: str, user: str, assistant: str) -> Rows:
    names = {"user": user, "assistant": assistant}
    return [{who: names[role], what: text} for role, text in talk]


def openai(talk: Said) -> Rows:
    return named(talk, "role", "content", "user", "assistant")


def sharegpt(talk: Said) -> Rows:
    return named(talk, "from", "value", "human", "gpt")


def oasst_nodes(number: int, talk: Said) -> Rows:
    """A path, with a worse reply and a deleted one beside each answer."""
    nodes: Rows = []
    parent: str | None = None
    for i, (role, text) in enumerate(talk):
        own = {"message_id": f"m{number}.{i}", "parent_id": parent, "message_tree_id": f"m{number}"}
        given = {"user": "prompter"}.get(role, role)
        node = {**own, "text": text, "role": given, "rank": 0 if i else None, "deleted": False}
        worse = {"text": "Worse.", "rank": 1, "message_id": f"w{number}.{i}"}
        gone = {"text": "Gone.", "rank": 0, "deleted": True, "message_id": f"d{number}.{i}"}
        nodes += [{**node, **gone}, {**node, **worse}, node] if i else [node]
        parent = own["message_id"]
    return nodes


def oasst_tree(number: int, talk: Said) -> dict[str, Any]:
    nodes = [{**node, "replies": []} for node in oasst_nodes(number, talk)]
    by_id = {node["message_id"]: node for node in nodes}
    for node in nodes[1:]:
        by_id[node["parent_id"]]["replies"].append(node)
    return {"message_tree_id": f"m{number}", "tree_state": "ready_for_export", "prompt": nodes[0]}


def chatgpt(number: int, talk: Said) -> dict[str, Any]:
    """The branch, with a hidden system message before it and an abandoned answer beside it."""
    mapping: dict[str, Any] = {"root": {"id": "root", "message": None, "parent": None}}
    hidden = {"is_visually_hidden_from_conversation": True}
    mapping["s"] = _node("s", "root", "system", "Secret.", hidden)
    parent = "s"
    for i, (role, text) in enumerate(talk):
        if role == "assistant":
            mapping[f"old{i}"] = _node(f"old{i}", parent, role, "An older answer.", {})
        mapping[f"n{i}"] = _node(f"n{i}", parent, role, text, {"model_slug": "gpt-4"})
        parent = f"n{i}"
    for node in list(mapping.values()):
        node["children"] = [key for key, other in mapping.items() if other["parent"] == node["id"]]
    return {"title": f"T{number}", "mapping": mapping, "current_node": parent, "id": f"c{number}"}


def _node(key: str, parent: str, role: str, text: str, metadata: dict[str, Any]) -> dict[str, Any]:
    message = {
        "id": key,
        "author": {"role": role, "name": None, "metadata": {}},
        "content": {"content_type": "text", "parts": [text]},
        "weight": 1.0,
        "metadata": metadata,
        "recipient": "all",
    }
    return {"id": key, "message": message, "parent": parent}


def _history(talk: Said) -> list[list[str]]:
    return [[talk[i][1], talk[i + 1][1]] for i in range(0, len(talk) - 2, 2)]


def _claude(number: int, talk: Said) -> dict[str, Any]:
    messages = [
        {"sender": row["role"], "text": row["content"], "content": [], "attachments": []}
        for row in named(talk, "role", "content", "human", "assistant")
    ]
    return {"uuid": f"u{number}", "name": "A talk", "chat_messages": messages}


def _wildchat(number: int, talk: Said) -> dict[str, Any]:
    turns = [{**row, "language": "English", "turn_identifier": number} for row in openai(talk)]
    own = {"conversation_hash": f"h{number}", "model": "gpt-4", "toxic": False, "redacted": False}
    return {**own, "conversation": turns, "openai_moderation": [{"flagged": False}]}


def _lmsys(number: int, talk: Said) -> dict[str, Any]:
    own = {"conversation_id": f"c{number}", "model": "koala-13b", "turn": len(talk) // 2}
    return {**own, "conversation": openai(talk), "openai_moderation": [{"flagged": False}]}


def _alpaca(number: int, talk: Said) -> dict[str, Any]:
    last = {"instruction": talk[-2][1], "input": "", "output": talk[-1][1]}
    return {**last, "history": _history(talk)}


def _dify(number: int, talk: Said) -> Rows:
    """The newest first; each answer but the last was made once before."""
    rows: Rows = []
    parent: str | None = None
    for i in range(0, len(talk), 2):
        own = {"conversation_id": f"c{number}", "parent_message_id": parent, "inputs": {"x": 1}}
        parent = f"m{number}.{i}"
        row = {**own, "id": parent, "query": talk[i][1], "answer": talk[i + 1][1]}
        again = {**row, "id": f"old{number}.{i}", "answer": "An older answer."}
        rows += [{**again, "created_at": 17 + i}, {**row, "created_at": 18 + i}]
    return rows[::-1]


WRITERS: dict[str, Callable[[int, Said], Rows]] = {
    "sharegpt": lambda i, talk: [{"id": f"s{i}", "conversations": sharegpt(talk)}],
    "openai": lambda i, talk: [{"messages": openai(talk)}],
    "wildchat": lambda i, talk: [_wildchat(i, talk)],
    "lmsys": lambda i, talk: [_lmsys(i, talk)],
    "ultrachat": lambda i, talk: [{"id": str(i), "data": [text for _, text in talk]}],
    "oasst-trees": lambda i, talk: [oasst_tree(i, talk)],
    "oasst-messages": oasst_nodes,
    "chatgpt-export": lambda i, talk: [chatgpt(i, talk)],
    "claude-export": lambda i, talk: [_claude(i, talk)],
    "alpaca": lambda i, talk: [_alpaca(i, talk)],
    "dolly": lambda i, talk: [{"instruction": talk[0][1], "context": "", "response": talk[1][1]}],
    "prompt-completion": lambda i, talk: [{"prompt": talk[0][1], "completion": talk[1][1]}],
    "pairs": lambda i, talk: [{"id": f"p{i}", "conversation": [*_history(talk), _last(talk)]}],
    "dify": _dify,
    "cria": lambda i, talk: [
        {"id": f"v{i}", "model": "m", "consent": True, "flags": [], "conversations": sharegpt(talk)}
    ],
}
ONE_ROUND = ("dolly", "prompt-completion")


def _last(talk: Said) -> list[str]:
    return [talk[-2][1], talk[-1][1]]


def records_of(layout: str) -> Rows:
    return [row for i, talk in enumerate(TALKS) for row in WRITERS[layout](i, talk)]


def talks_of(layout: str) -> list[Said]:
    return ROUNDS if layout in ONE_ROUND else TALKS


def lines(rows: Rows) -> bytes:
    return b"\n".join(map(orjson.dumps, rows))


def _parquet(rows: Rows) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([_flat(row) for row in rows]), out)
    return out.getvalue()


def _arrow(rows: Rows, *, is_stream: bool) -> bytes:
    table = pa.Table.from_pylist([_flat(row) for row in rows])
    out = io.BytesIO()
    make = pa.ipc.new_stream if is_stream else pa.ipc.new_file
    with make(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Trees and mappings have no columns: tables hold them as JSON or not at all."""
    return {key: None if value == [] else value for key, value in row.items()}


def _csv(rows: Rows, separator: str) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=separator)
    writer.writeheader()
    for row in rows:
        cells = {key: json.dumps(v) if isinstance(v, list | dict) else v for key, v in row.items()}
        writer.writerow(cells)
    return out.getvalue().encode()


def _zip(rows: Rows) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("export/conversations.json", orjson.dumps(rows))
        archive.writestr("export/user.json", b'{"email": "x@example.com"}')
        archive.writestr("export/chat.html", b"<html></html>")
    return out.getvalue()


FILES: dict[str, Callable[[Rows], bytes]] = {
    "dump.json": orjson.dumps,
    "indented.json": lambda rows: json.dumps(rows, indent=2).encode(),
    "lines.jsonl": lines,
    "dump.json.gz": lambda rows: gzip.compress(orjson.dumps(rows)),
    "lines.jsonl.zst": lambda rows: zstandard.compress(lines(rows)),
    "export.zip": _zip,
}
TABLES: dict[str, Callable[[Rows], bytes]] = {
    "dump.parquet": _parquet,
    "stream.arrow": lambda rows: _arrow(rows, is_stream=True),
    "file.arrow": lambda rows: _arrow(rows, is_stream=False),
    "dump.csv": lambda rows: _csv(rows, ","),
    "dump.tsv": lambda rows: _csv(rows, "\t"),
    "dump.csv.gz": lambda rows: gzip.compress(_csv(rows, ";")),
}
NOT_IN_TABLES = ("oasst-trees", "chatgpt-export")


def write(folder: Path, layout: str, name: str) -> Path:
    path = folder / name
    path.write_bytes({**FILES, **TABLES}[name](records_of(layout)))
    return path
