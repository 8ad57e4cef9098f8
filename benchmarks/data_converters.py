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
_SOUP = ["beautifulsoup4==4.15.0", "soupsieve==4.1.3", "typing_extensions==4.16.0"]
_TRAFILATURA = """trafilatura==2.3.1 lxml==6.1.3 lxml_html_clean==0.4.6 courlan==1.4.0
htmldate==1.11.0 jusText==3.0.2 babel==2.19.0 certifi==2026.10.19.post1 charset-normalizer==3.5.3
dateparser==1.5.0 python-dateutil==4.0.0 pytz==2026.6 regex==2026.11.19 tld==0.13.2 tzdata==2026.6
tzlocal==5.4.5 urllib3==2.8.0"""
CONVERTERS: dict[str, list[str]] = {
    "markdownify": ["markdownify==1.2.3", "six==1.17.0", *_SOUP],
    "html2text": ["html2text==2025.4.15"],
    "html_to_markdown": ["html-to-markdown==3.21.2"],
    "mdka": ["mdka==3.3.0"],
    "markdownify_rs": ["markdownify-rs==0.2.1"],
    "htmd": ["htmd-py==0.1.2"],
    "trafilatura": _TRAFILATURA.split(),
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
