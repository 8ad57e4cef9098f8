"""The peers that apps/data is measured beside, each pinned with all that it needs.

What a pin leaves open moves under it: trafilatura once stopped starting because its lxml had lost
`html.clean`. `pip freeze` of a fresh environment gave these lines on 2026-11-29.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import peers

SCRIPT = Path(__file__).parent / "data_peers.py"
FASTCHAT = ["fschat==0.2.36", "markdownify==0.11.6", "beautifulsoup4", "tqdm"]
CONVERTERS: dict[str, list[str]] = {}


def fastchat() -> str:
    """Path of FastChat's Python."""
    return peers.environment("fschat-0.2.36", FASTCHAT)


def converted(
    raw: Path, scratch: Path, *, only_fastchat: bool = False
) -> Iterator[tuple[str, list[str], float]]:
    """Name, texts and best CPU seconds of each peer for the messages of a JSON file."""
    out = scratch / "converted.json"
    runs = [("fastchat", "FastChat", "fschat-0.2.36", FASTCHAT)]
    if not only_fastchat:
        runs += [(n, f"{n} {_version(n)}", f"html-{n}", pins) for n, pins in CONVERTERS.items()]
    for name, label, environment, requirements in runs:
        try:
            python = peers.environment(environment, requirements)
            peers.run(python, SCRIPT, "convert", name, str(raw), str(out))
        except subprocess.CalledProcessError as error:
            print(f"{label} could not run: {error}", file=sys.stderr)
            continue
        result = json.loads(out.read_text())
        yield label, result["texts"], result["seconds"]


def _version(name: str) -> str:
    return CONVERTERS[name][0].partition("==")[2]
