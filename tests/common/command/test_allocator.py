"""A process that parses many messages does not ask for the same pages over and over."""

import subprocess
import sys

import pytest

from apps.common.command.allocator import keep_freed_memory

PARSES = """
import resource, sys
from apps.common.command.allocator import keep_freed_memory
from apps.data.html.to_markdown import to_markdown
page = "<p>" + "word <b>bold</b> " * 400 + "</p>"
if sys.argv[1] == "keep":
    assert keep_freed_memory()
to_markdown(page)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    to_markdown(page)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


COLLECTS = """
import gc, sys
from apps.common.command.allocator import collect_rarely
if sys.argv[1] == "rarely":
    collect_rarely()
before = gc.get_stats()[0]["collections"]
kept = [[number] for number in range(100_000)]
print(gc.get_stats()[0]["collections"] - before)
"""


def counted(script: str, how: str) -> int:
    command = [sys.executable, "-c", script, how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="this C library has no mallopt")
def test_freed_memory_stays_for_the_next_message() -> None:
    assert counted(PARSES, "keep") < 200 < counted(PARSES, "not")


def test_the_collector_looks_after_many_new_objects_only() -> None:
    assert counted(COLLECTS, "rarely") <= 2 < 100 < counted(COLLECTS, "often")
