"""`python -m apps.data layouts`: every layout that `clean` reads, with an example of each."""

from apps.common.command.events import Reporter
from apps.data.config import LayoutsConfig
from apps.data.read.layouts.known import BY_NAME


def show(config: LayoutsConfig, reporter: Reporter) -> None:
    """One line of what it is and one of an example; as JSON an event each."""
    del config
    for layout in BY_NAME.values():
        if reporter.is_json:
            reporter.event("layout", layout=layout.name, what=layout.what, example=layout.example)
        else:
            print(f"{layout.name:<18} {layout.what}\n{'':<18} {layout.example}")
