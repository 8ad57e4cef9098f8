"""The peers that apps/data is measured beside; `pins/` has a version for all that they need."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import peers

SCRIPT = Path(__file__).parent / "data_peers.py"
FASTCHAT = ["fschat==0.2.36", "markdownify==0.11.6", "beautifulsoup4", "tqdm"]
CONVERTERS: dict[str, list[str]] = {
    "markdownify": ["markdownify==1.2.3"],
    "html2text": ["html2text==2025.4.15"],
    "html_to_markdown": ["html-to-markdown==3.21.2"],
    "mdka": ["mdka==3.3.0"],
    "markdownify_rs": ["markdownify-rs==0.2.1"],
    "htmd": ["htmd-py==0.1.2"],
    "trafilatura": ["trafilatura==2.3.1", "lxml_html_clean==0.4.6"],
}


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
