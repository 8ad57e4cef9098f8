"""Peers of apps/data, run inside their own environment: HTML converters and FastChat's cleaner.

python data_peers.py convert NAME messages.json out.json    {"seconds": CPU, "texts": [...]}
python data_peers.py clean dump.json out.json               FastChat's clean_sharegpt, one process
"""

# The peers are installed in environments of their own.
# pyright: reportMissingImports=false

import json
import sys
import time
from collections.abc import Callable

REPEATS = 3


def fastchat() -> Callable[[str], str]:
    from fastchat.data.clean_sharegpt import html_to_markdown

    return html_to_markdown


def markdownify() -> Callable[[str], str]:
    import markdownify

    return markdownify.markdownify


def html2text() -> Callable[[str], str]:
    import html2text

    converter = html2text.HTML2Text(bodywidth=0)
    return converter.handle


def html_to_markdown() -> Callable[[str], str]:
    import html_to_markdown

    def convert(page: str) -> str:
        found = html_to_markdown.convert(page)
        return found if isinstance(found, str) else found.content

    return convert


def mdka() -> Callable[[str], str]:
    import mdka

    return getattr(mdka, "from_html", None) or mdka.html_to_markdown


def markdownify_rs() -> Callable[[str], str]:
    import markdownify_rs

    return markdownify_rs.markdownify


def htmd() -> Callable[[str], str]:
    import htmd

    return htmd.convert_html


def trafilatura() -> Callable[[str], str]:
    from trafilatura import extract

    return lambda page: extract(page, output_format="markdown", include_formatting=True) or ""


def convert(name: str, messages: list[str]) -> dict[str, object]:
    """Best CPU seconds of three passes; a message that raises becomes empty."""
    converter = globals()[name]()

    def safely(page: str) -> str:
        try:
            return converter(page) or ""
        except Exception:
            return ""

    best, texts = float("inf"), []
    for _ in range(REPEATS):
        start = time.process_time()
        texts = [safely(page) for page in messages]
        best = min(best, time.process_time() - start)
    return {"seconds": best, "texts": texts}


def clean(path: str) -> dict[str, object]:
    """FastChat's own functions in its own order, without its process pool."""
    from fastchat.data import clean_sharegpt

    start = time.process_time()
    with open(path) as handle:
        content = json.load(handle)
    kept, ids, openings = 0, set(), set()
    for sample in content:
        sample, code = clean_sharegpt.clean_html_one_sample(sample)
        if code != 0 or sample["id"] in ids or sample.get("plugins") is not None:
            continue
        ids.add(sample["id"])
        opening = tuple(turn["value"] for turn in sample["conversations"][:2])
        kept += opening not in openings
        openings.add(opening)
    return {"seconds": time.process_time() - start, "kept": kept}


def main() -> None:
    kind, *rest = sys.argv[1:]
    if kind == "convert":
        name, source, out = rest
        with open(source) as handle:
            found = convert(name, json.load(handle))
    else:
        source, out = rest
        found = clean(source)
    with open(out, "w") as handle:
        json.dump(found, handle)


if __name__ == "__main__":
    main()
