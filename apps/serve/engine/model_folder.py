"""Small facts of a Hugging Face model folder, read from its JSON files."""

import json
from pathlib import Path
from typing import Any


def read_eos_token_ids(folder: str | Path) -> tuple[int, ...]:
    """From generation_config.json, else config.json; empty when neither says."""
    for name in ("generation_config.json", "config.json"):
        eos = _read(Path(folder) / name).get("eos_token_id")
        if eos is not None:
            return tuple(eos) if isinstance(eos, list) else (eos,)
    return ()


def read_vocab_size(folder: str | Path) -> int:
    """0 when the folder is not on this machine (a hub id)."""
    return int(_read(Path(folder) / "config.json").get("vocab_size", 0))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}
