"""Two page replicas on Ray, killed again and again while two visitors fight battles."""

import dataclasses
import json
import random
import re
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from apps.serve.page.config import PageLimits
from apps.serve.page.store.database import Database
from apps.serve.page.store.tables import Vote
from tests.serve.page.live import Person
from tests.serve.service import ON_RAY, Service

pytestmark = [*ON_RAY, pytest.mark.slow]
NUM_KILLS = 10
UNLIMITED = PageLimits(
    answers_per_minute=0, answers_per_hour=0, address_answers_per_hour=0, votes_per_hour=0
)


class Patient(Person):
    """Does what the page's own script does: asks again when a process is gone."""

    def raw(self, name: str, text: object) -> dict[str, Any]:
        while True:
            try:
                response = self.http.post(f"gradio_api/run/{name}", json={"data": [text]})
                if response.status_code == 200:
                    return json.loads(response.json()["data"][0])
            except httpx.TransportError:
                pass
            time.sleep(0.3)

    def ends(self, turns: list[str]) -> dict[str, str]:
        """How each answer ended, over as many connections as it takes."""
        seen: dict[str, str] = {}
        while len(seen) < len(turns) or {"waiting", "running"} & set(seen.values()):
            try:
                for event in self.follow(turns):
                    seen[event["turn"]] = event["status"]
            except httpx.TransportError:
                time.sleep(0.3)
        return seen


def replicas(deployment: str) -> list[Any]:
    import ray

    names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    found = [name for name in names if f"::{deployment}#" in name]
    return [ray.get_actor(name, namespace="serve") for name in found]


def kill_pages(done: threading.Event, begun: threading.Semaphore) -> None:
    """One for each battle that begins, while its answers are on their way."""
    import ray

    for _ in range(NUM_KILLS):
        assert begun.acquire(timeout=200), "no battle begins any more"
        while not (pages := replicas("page#Page")):
            time.sleep(0.1)
        ray.kill(random.choice(pages))
    done.set()


def fight(
    url: str, done: threading.Event, begun: threading.Semaphore, kept: dict[str, str]
) -> None:
    person = Patient(url, cookie=False)
    while "set-cookie" not in person.http.get("").headers:
        time.sleep(0.3)
    while not done.is_set():
        battle = person.act("ask", id=uuid.uuid4().hex, text="Tell me", kind="battle")
        begun.release()
        ends = person.ends([side[0]["id"] for side in battle["sides"]])
        assert set(ends.values()) == {"done"}, ends
        verdict = random.choice(["left", "right", "tie"])
        assert person.act("vote", battle=battle["id"], verdict=verdict)["verdict"] == verdict
        kept[battle["id"]] = verdict


def test_ten_kills_lose_no_answer_and_no_vote_and_double_none(
    running: Service, tmp_path: Path
) -> None:
    before = running.config
    url = f"sqlite:///{tmp_path}/page.db"
    page = dataclasses.replace(before.page, replicas=2, database_url=url, limits=UNLIMITED)
    running.apply(dataclasses.replace(before, page=page))
    try:
        done, begun, kept = threading.Event(), threading.Semaphore(0), ({}, {})
        asked = (f"{running.url}/ui/", done, begun)
        visitors = [
            threading.Thread(target=fight, args=(*asked, mine), daemon=True) for mine in kept
        ]
        for thread in visitors:
            thread.start()
        kill_pages(done, begun)
        for thread in visitors:
            thread.join(300)
            assert not thread.is_alive()
    finally:
        running.apply(before)
    database = Database(url)
    with database.read() as session:
        stored = {vote.battle_id: vote.verdict for vote in session.scalars(sa.select(Vote))}
    database.close()
    assert stored == {**kept[0], **kept[1]} and len(stored) >= NUM_KILLS
    close_people()


def close_people() -> None:
    while Person.clients:
        Person.clients.pop().close()


def test_gateways_that_are_killed_in_mid_answer_cost_no_text(running: Service) -> None:
    """The page goes on behind the last event it has, with whichever gateway comes back."""
    import ray

    person = Patient(f"{running.url}/ui/", cookie=False)
    while "set-cookie" not in person.http.get("").headers:
        time.sleep(0.3)
    # Sampled: begun anew it would differ. One that ends before the kill tells nothing.
    for _ in range(8):
        fields = {"models": ["one"], "temperature": 0.5, "max_tokens": 4000}
        talk = person.act("ask", id=uuid.uuid4().hex, text="Tell me", kind="chat", **fields)
        turn = talk["turns"][0]["id"]
        shown = next(e["html"] for e in person.follow([turn]) if e.get("html"))
        for gateway in replicas("gateway#Gateway"):
            ray.kill(gateway)
        assert person.ends([turn]) == {turn: "done"}
        said = person.act("open", id=talk["id"])["turns"][0]["html"]
        assert words(said)[: len(words(shown)) - 1] == words(shown)[:-1]
        if len(words(said)) > len(words(shown)):
            break
    else:
        pytest.fail("every answer had ended before the gateways were killed")
    close_people()


def words(html: list[str]) -> list[str]:
    return re.sub(r"<[^>]*>", " ", " ".join(html)).split()
