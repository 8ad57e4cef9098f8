"""`python -m apps.data layouts`: every layout that `clean` reads, with an example of each.

`clean --help` shows the same lines.
"""

from apps.common.command.events import Reporter
from apps.data.config import LayoutsConfig
from apps.data.read.layouts.known import BY_NAME


def show(config: LayoutsConfig, reporter: Reporter) -> None:
    """As JSON an event each."""
    del config
    if not reporter.is_json:
        print(described())
        return
    for layout in BY_NAME.values():
        reporter.event("layout", layout=layout.name, what=layout.what, example=layout.example)


def described() -> str:
    """Of each layout one line of what it is and one of an example."""
    return "\n".join(
        f"{layout.name:<18} {layout.what}\n{'':<18} {layout.example}" for layout in BY_NAME.values()
    )
