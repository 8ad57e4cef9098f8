"""What is served where: entries stay while their models do, and silent members are left out."""

import asyncio
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from apps.serve.config import ModelConfig
from apps.serve.model.entry import Entry
from apps.serve.model.served import load_model
from tests.serve.service_files import two

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def test_a_remote_model_keeps_its_engine_until_that_changes() -> None:
    from apps.serve.directory import ServeDirectory

    def remote(model: str, **fields: object) -> ModelConfig:
        options = {"base_url": "http://127.0.0.1:9/v1", "model": model, "max_running": 2}
        return ModelConfig(name="far", engine="remote", options=options, **fields)

    directory = ServeDirectory(exchange=None)
    await directory.update([remote("a")])
    engine = directory.entries["far"].engine
    await directory.update([remote("a", aliases=("distant",))])
    assert directory.entries["far"].engine is engine
    async with engine._slots:
        await directory.update([remote("b")])
        await asyncio.sleep(0)
        assert not engine._http.closed, "an answer is under way"
    async with asyncio.timeout(5):
        while not engine._http.closed:
            await asyncio.sleep(0.01)
    await directory.update([])
    async with asyncio.timeout(5):
        await asyncio.gather(*directory._closing)


async def test_a_model_whose_files_changed_has_its_text_side_read_again(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apps.serve import directory as serve_directory

    monkeypatch.setattr(serve_directory, "_handle", lambda application: None)
    directory = serve_directory.ServeDirectory(exchange=None)
    own = shutil.copytree(model_folder, tmp_path / "model")
    models = [ModelConfig(name="one", path=str(own))]
    await directory.update(models, revisions={"one": "a"})
    entry = directory.entries["one"]
    await directory.update(models, revisions={"one": "a"})
    assert directory.entries["one"] is entry
    (own / "chat_template.jinja").write_text("{{ messages[0].content }}")
    await directory.update(models, revisions={"one": "b"})
    new = directory.entries["one"]
    assert isinstance(new, Entry) and new.model.template is not None
    assert new.model.template.source == "{{ messages[0].content }}"


async def test_a_controller_that_says_nothing_holds_one_thread_and_nobody(monkeypatch) -> None:
    from apps.serve import directory as serve_directory

    asked, ends = [], threading.Event()

    def status() -> SimpleNamespace:
        asked.append(1)
        ends.wait(10)
        return SimpleNamespace(applications={})

    monkeypatch.setattr(serve_directory.serve, "status", status)
    monkeypatch.setattr(serve_directory, "_BROADCAST_TIMEOUT_S", 0.05)
    directory = serve_directory.ServeDirectory(exchange=None)
    try:
        assert await asyncio.gather(*(directory.ready() for _ in range(50))) == [{}] * 50
        assert await directory.ready() == {} and len(asked) == 1
    finally:
        ends.set()
    options = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
    await directory.update([ModelConfig(name="far", engine="remote", options=options)])
    async with asyncio.timeout(5):
        while await directory.ready() != {"far": True}:
            await asyncio.sleep(0.01)
    await directory.update([])
    await asyncio.gather(*directory._closing)


async def test_a_member_whose_engines_are_silent_is_silent_though_its_replicas_answer(
    model_folder: Path, monkeypatch
) -> None:
    from ray.exceptions import RayActorError

    from apps.serve import directory as serve_directory

    model = load_model(two(model_folder).models[0])
    entry, said = Entry(model=model, backend=None), list[object]()

    async def answers(application: str, *_: object) -> list[object]:
        return said

    monkeypatch.setattr(serve_directory, "_answers", answers)
    for given, health in (
        ([False, True], "well"),
        ([False, False], "silent"),
        ([False, RayActorError()], "silent"),
        ([TimeoutError()], "silent"),
        ([RayActorError()], "dead"),
    ):
        said[:] = given
        assert await serve_directory._health(entry) == health


async def test_a_pools_members_stay_as_they_are_until_their_model_changes() -> None:
    from apps.serve.directory import ServeDirectory

    def models(theirs: str, weight: float) -> list[ModelConfig]:
        options = {"base_url": "http://127.0.0.1:9/v1", "model": theirs}
        members = [{"model": "far", "weight": weight, "last_resort": True}]
        return [
            ModelConfig(name="all", engine="pool", options={"members": members}),
            ModelConfig(name="far", engine="remote", options=options),
        ]

    directory = ServeDirectory(exchange=None)
    await directory.update(models("a", 1.0))
    assert list(directory.entries) == ["all", "far"]
    member = directory.pools["all"].members["far"]
    member.failed()
    await directory.update(models("a", 2.0))
    assert directory.pools["all"].members["far"] is member
    assert (member.weight, member.is_last_resort, member.is_up) == (2.0, True, False)
    await directory.update(models("b", 2.0))
    assert directory.pools["all"].members["far"].is_up
    await directory.update([])
    await asyncio.gather(*directory._closing)
