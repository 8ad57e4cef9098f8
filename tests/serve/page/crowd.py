"""Many visitors at once: each fights one battle and votes."""

import threading
import time
from dataclasses import dataclass, field

import psutil

from apps.serve.page.config import PageLimits
from tests.serve.page.live import Person

UNLIMITED = PageLimits(
    answers_per_minute=0, answers_per_hour=0, address_answers_per_hour=0, votes_per_hour=0
)

_PATIENCE_S = 120
"""a machine that computes for others too is slow, and that is no fault"""


@dataclass(slots=True)
class Crowd:
    """What visitors saw; every visit adds to it."""

    url: str
    first_text_s: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def come(self, num_visitors: int) -> float:
        """MiB that this process holds once all have left; the page runs in it."""
        threads = [threading.Thread(target=self._visit) for _ in range(num_visitors)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        while Person.clients:
            Person.clients.pop().close()
        return psutil.Process().memory_info().rss / 2**20

    def _visit(self) -> None:
        try:
            person = Person(self.url, cookie=False)
            person.http.timeout = _PATIENCE_S
            person.http.get("")
            start_s = time.monotonic()
            # Greedy: a random model that samples ends one in some hundred answers before it began.
            battle = person.ask(temperature=0)
            assert "sides" in battle, battle
            turns = [side[0]["id"] for side in battle["sides"]]
            ends: dict[str, str] = {}
            errors: list[str] = []
            text_s = 0.0
            for event in person.follow(turns):
                text_s = text_s or (time.monotonic() - start_s if event.get("html") else 0.0)
                ends[event["turn"]] = event["status"]
                errors += [event["error"]] if event.get("error") else []
            self.first_text_s.append(text_s)
            assert ends == dict.fromkeys(turns, "done"), (ends, errors)
            voted = person.act("vote", battle=battle["id"], verdict="tie")
            assert voted.get("verdict") == "tie", voted
        except Exception as error:
            self.failed.append(repr(error))
