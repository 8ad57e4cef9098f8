"""apps/data side by side with FastChat (fschat 0.2.36) and with other HTML converters.

    python benchmarks/data.py --json data.json
    python benchmarks/data.py --scale-mb 1000 --json data.json      also an array on 1, 2 workers

One process and CPU seconds unless said; MB are raw input bytes. The corpus is generated
(corpus.py). FastChat and the converters run in their own environments (peers.py).
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import psutil
from markdown_it import MarkdownIt

from apps.common.command.allocator import collect_rarely, keep_freed_memory
from apps.data import clean_range, ranges
from apps.data.config import CleanConfig
from apps.data.html import detect, to_markdown
from apps.data.read import index
from apps.data.rules.profiles import Rules, none, strict, vicuna
from benchmarks import data_converters, peers
from benchmarks.results import save
from tests.data import corpus, source_answers

COLUMNS = ("code", "language", "list", "table", "paragraph", "tex", "no_leak", "no_escapes")
BARS = {
    "html MB/s": 30,
    "html / FastChat": 8,
    "clean strict MB/s": 9,
    "clean FastChat's rules / FastChat": 5.5,
    "two workers / one": 1.65,
    "users unchanged": 1.0,
    "Markdown answers unchanged": 1.0,
}
_MARKDOWN = MarkdownIt("commonmark").enable("table")
_ESCAPE = re.compile(r"\\[_*\[\]#<>.\-+(){}~|]")


def fastchat_rules() -> Rules:
    """Those of clean_sharegpt alone: no language, lexicon, list or continuation rules."""
    own = Rules(
        scores="used", restarted_list="keep", language_skip=(), max_severity=3, duplicate="keep"
    )
    return own.over(vicuna())


def facts(markdown: str) -> dict[str, Counter[Any]]:
    """What a reader sees of a text: its code blocks, list items, cells and paragraphs."""
    found: dict[str, Counter[Any]] = {name: Counter() for name in COLUMNS[:5]}
    lists: list[list[Any]] = []
    in_cell = False
    for token in _MARKDOWN.parse(markdown):
        if token.type in ("fence", "code_block"):
            found["code"][token.content.rstrip("\n")] += 1
            found["language"][token.info.strip(), token.content.rstrip("\n")] += 1
        elif token.type in ("bullet_list_open", "ordered_list_open"):
            lists.append([token.type[:3], int(token.attrs.get("start", 1)), False])
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            lists.pop()
        elif token.type == "list_item_open":
            lists[-1][2] = True
        elif token.type in ("td_open", "th_open"):
            in_cell = True
        elif token.type in ("td_close", "th_close"):
            in_cell = False
        elif token.type == "inline":
            text = _plain(token)
            if in_cell:
                found["table"][text] += 1
            elif lists and lists[-1][2]:
                kind, number, _ = lists[-1]
                found["list"][len(lists), kind, number if kind == "ord" else 0, text] += 1
                lists[-1][1:] = [number + 1, False]
            else:
                found["paragraph"][text] += 1
    return found


def _plain(token: Any) -> str:
    parts = [
        "\n" if child.type in ("softbreak", "hardbreak") else child.content
        for child in token.children
    ]
    return " ".join("".join(parts).split())


def f1(pairs: Iterable[tuple[Counter[Any], Counter[Any]]]) -> float:
    hits = made = wanted = 0
    for expected, found in pairs:
        hits += (expected & found).total()
        made += found.total()
        wanted += expected.total()
    return 2 * hits / (made + wanted) if made + wanted else 1.0


def quality(answers: list[corpus.Message], texts: list[str]) -> dict[str, float]:
    """Micro-averaged F1 of facts of the unbroken messages, and what must not be there."""
    rows = [(m, text) for m, text in zip(answers, texts, strict=True) if not m.is_broken]
    pairs = [(facts(m.markdown), facts(text)) for m, text in rows]
    scores = {name: f1((a[name], b[name]) for a, b in pairs) for name in COLUMNS[:5]}
    tex = [(t, text) for m, text in rows for t in corpus.TEX if f"${t}$" in m.markdown]
    scores["tex"] = sum(t in text for t, text in tex) / max(1, len(tex))
    scores["no_leak"] = sum("Copy code" not in text for _, text in rows) / len(rows)
    without_code = [re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL) for _, text in rows]
    scores["no_escapes"] = sum(not _ESCAPE.search(text) for text in without_code) / len(rows)
    return scores


def converters(scratch: Path, count: int) -> dict[str, Any]:
    messages = list(corpus.messages(count, seed=1))
    answers = [m for m in messages if m.role == "assistant"]
    users = [m.raw for m in messages if m.role == "user"]
    size = sum(len(m.raw.encode()) for m in answers) / 1e6
    keep_freed_memory()  # as a worker does
    collect_rarely()
    best, texts = _converted(answers)
    found = {"ours": quality(answers, texts)}
    found["source Markdown"] = quality(answers, [m.markdown for m in answers])
    raw = scratch / "messages.json"
    raw.write_bytes(orjson.dumps([m.raw for m in answers]))
    for name, texts, seconds in data_converters.converted(raw, scratch):
        found[name] = {"MB/s": size / seconds, **quality(answers, texts)}
        best = min(best, _converted(answers)[0])  # a shared machine's speed changes by the minute
    found["ours"]["MB/s"] = size / best
    raw.write_bytes(orjson.dumps(users))
    changed = next(iter(data_converters.converted(raw, scratch, only_fastchat=True)))[1]
    same = sum(a == b for a, b in zip(users, changed, strict=True)) / len(users)
    ours = sum(not detect.is_html(text, by_assistant=False) for text in users) / len(users)
    return {"MB": size, "converters": found, "users_unchanged": {"ours": ours, "FastChat": same}}


def _converted(answers: list[corpus.Message]) -> tuple[float, list[str]]:
    """Best CPU seconds of three passes, and the texts."""
    best, texts = float("inf"), []
    for _ in range(3):
        start = time.process_time()
        texts = [to_markdown.to_markdown(m.raw) for m in answers]
        best = min(best, time.process_time() - start)
    return best, texts


def already_markdown(scratch: Path, count: int) -> dict[str, float]:
    """Share of answers about HTML, XML, JSX, TeX and Markdown whose bytes each leaves alone.

    Of peers, the first tenth of the answers.
    """
    texts = list(source_answers.answers(count, seed=3))
    raw = scratch / "source.json"
    found = {"ours": _share_equal(texts, [_as_cleaned(text) for text in texts])}
    texts = texts[: count // 10]  # the slowest peer does 300 a second
    raw.write_bytes(orjson.dumps(texts))
    for name, changed, _ in data_converters.converted(raw, scratch):
        found[name] = _share_equal(texts, changed)
    return found


def _as_cleaned(text: str) -> str:
    """As an answer of a ShareGPT dump; other layouts hold no pages at all."""
    is_html = detect.is_html(text, by_assistant=True)
    return to_markdown.to_markdown(text) if is_html else text


def _share_equal(texts: list[str], changed: list[str]) -> float:
    return sum(a == b for a, b in zip(texts, changed, strict=True)) / len(texts)


def cleaning_speed(scratch: Path, count: int) -> dict[str, Any]:
    """MB/s; the best of three turns, in each of which all ran after one another."""
    dump = write_dump(scratch / "dump.json", count)
    size = dump.stat().st_size / 1e6
    rules = {"strict": strict(), "vicuna": vicuna(), "none": none()}
    rules["FastChat's rules"] = fastchat_rules()
    found: dict[str, Any] = {"MB": size}
    for _ in range(3):
        seconds = {name: _clean_seconds(dump, chosen, scratch) for name, chosen in rules.items()}
        seconds["FastChat"] = _fastchat_seconds(dump, scratch / "cleaned.json")
        found |= {name: max(found.get(name, 0.0), size / s) for name, s in seconds.items()}
    return found


def _fastchat_seconds(dump: Path, out: Path) -> float:
    peers.run(data_converters.fastchat(), data_converters.SCRIPT, "clean", str(dump), str(out))
    return json.loads(out.read_text())["seconds"]


def _clean_seconds(dump: Path, rules: Rules, scratch: Path) -> float:
    """CPU seconds of indexing and cleaning one file, range after range, files written."""
    start = time.process_time()
    config = CleanConfig(inputs=(str(dump),), out="unused", rules=rules)
    pieces = index.units([str(dump)], 16 << 20, config.reading())
    file = index.join([index.index(unit.args, str(scratch / "index")) for unit in pieces])[0]
    for unit in ranges.range_units([file], config):
        clean_range.clean_unit(unit.args, str(scratch / f"unit-{unit.args.ordinal}"))
    return time.process_time() - start


def write_dump(path: Path, count: int, size_bytes: int = 0) -> Path:
    """An indented JSON array; with `size_bytes`, copies under new ids until it is full."""
    records = list(corpus.conversations(count, seed=5))
    separator, copy = b"[\n", 0
    with open(path, "wb") as handle:
        while copy == 0 or handle.tell() < size_bytes:
            for record in records:
                record = {**record, "id": f"{record['id']}-{copy}"}
                if copy:
                    first, *rest = record["conversations"]
                    first = {**first, "value": f"{first['value']} (variant {copy})"}
                    record["conversations"] = [first, *rest]
                handle.write(separator + orjson.dumps(record, option=orjson.OPT_INDENT_2))
                separator = b",\n"
            copy += 1
        handle.write(b"\n]\n")
    return path


def on_workers(dump: Path, scratch: Path, workers: int) -> dict[str, float]:
    """Wall seconds of the command once Ray runs, all its steps, and a worker's highest memory."""
    out = scratch / f"out-{workers}"
    command = [sys.executable, "-m", "apps.data", "clean", str(dump), "--out", str(out)]
    command += ["--profile", "strict", "--workers", str(workers), "--log-format", "json"]
    process = subprocess.Popen([*command, "--unit-mb", "8"], stdout=subprocess.PIPE, text=True)
    watcher = _Memory(process.pid)
    events = [json.loads(line) for line in process.stdout or ()]
    if process.wait() != 0:
        raise SystemExit(f"clean failed: {events[-1:]}")
    times = {event["event"]: event["time"] for event in events}
    return {
        "clean_s": times["clean.done"] - times["clean.start"],
        "worker_mb": watcher.stop() / 1e6,
    }


class _Memory:
    """Highest private memory (USS) of any Ray worker below a process, every half second."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._most = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.5):
            try:
                for child in self._root.children(recursive=True):
                    if child.name().startswith("ray::"):
                        self._most = max(self._most, child.memory_full_info().uss)
            except psutil.Error:
                continue

    def stop(self) -> int:
        self._done.set()
        self._thread.join()
        return self._most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=2000, help="messages to convert")
    parser.add_argument("--source-answers", type=int, default=10_000, help="of the second table")
    parser.add_argument("--conversations", type=int, default=2500, help="about 10 kB each")
    parser.add_argument(
        "--scale-mb", type=int, default=0, help="MB of an array for 1 and 2 workers"
    )
    parser.add_argument("--json", type=Path, help="JSON file; results/data.json if not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        result = converters(scratch, options.messages)
        result["already_markdown"] = already_markdown(scratch, options.source_answers)
        result["clean"] = cleaning_speed(scratch, options.conversations)
        if options.scale_mb:
            dump = write_dump(scratch / "big.json", options.conversations, options.scale_mb << 20)
            result["workers"] = {n: on_workers(dump, scratch, n) for n in (2, 1)}
    result["ratios"] = ratios(result)
    save("data", result, options.json)
    table(result)


def ratios(result: dict[str, Any]) -> dict[str, float]:
    html_rates = {name: row.get("MB/s") for name, row in result["converters"].items()}
    clean = result["clean"]
    found = {
        "html MB/s": html_rates["ours"],
        "html / FastChat": html_rates["ours"] / html_rates["FastChat"],
        "clean strict MB/s": clean["strict"],
        "clean FastChat's rules / FastChat": clean["FastChat's rules"] / clean["FastChat"],
        "users unchanged": result["users_unchanged"]["ours"],
        "Markdown answers unchanged": result["already_markdown"]["ours"],
    }
    if workers := result.get("workers"):
        found["two workers / one"] = workers[1]["clean_s"] / workers[2]["clean_s"]
    return found


def table(result: dict[str, Any]) -> None:
    for name, value in result["ratios"].items():
        print(f"{name:<36}{value:8.2f}   bar {BARS[name]}")
    for workers, row in result.get("workers", {}).items():
        print(
            f"{workers} worker(s): {row['clean_s']:.1f} s, at most {row['worker_mb']:.0f} MB each"
        )
    print(f"users unchanged by FastChat {result['users_unchanged']['FastChat']:.2f}")
    print("clean MB/s: " + ", ".join(f"{k} {v:.1f}" for k, v in result["clean"].items()))
    print(f"{'converter':<26}{'MB/s':>7}" + "".join(f"{name:>11}" for name in COLUMNS))
    for name, row in result["converters"].items():
        rate = f"{row['MB/s']:7.1f}" if "MB/s" in row else " " * 7
        print(f"{name:<26}{rate}" + "".join(f"{row[column]:11.3f}" for column in COLUMNS))
    print("answers that were Markdown already, unchanged")
    for name, share in result["already_markdown"].items():
        print(f"{name:<26}{share:7.4f}")


if __name__ == "__main__":
    main()
