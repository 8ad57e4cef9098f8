"""Which models are up, asked of an API that may be silent; what a visitor learns of a model."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import pytest

from apps.serve.page.answers.client import ChatClient
from apps.serve.page.arena.models import Models, PageModel, _facts, default_max_tokens

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Api:
    """Counts who asks it; each question is answered by `answer`, and its connection closed."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._handlers: set[asyncio.Task[None]] = set()
        self.num_asked = 0
        self.is_asked = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._handlers.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            self.num_asked += 1
            self.is_asked.set()
            await self._answer(writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    @contextlib.asynccontextmanager
    async def models(self, known: Sequence[PageModel] = ()):
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            client = ChatClient(f"http://127.0.0.1:{port}/v1", "")
            yield Models(client, known)
            await client.close()
            await asyncio.gather(*self._handlers)


def says(body: bytes) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        writer.write(head + body)
        await writer.drain()

    return answer


def test_all_who_wait_for_a_silent_api_share_one_question() -> None:
    async def run() -> None:
        goes_on = asyncio.Event()

        async def silent(writer: asyncio.StreamWriter) -> None:
            await goes_on.wait()  # and closes without a word

        api = Api(silent)
        async with api.models() as models:
            waiting = [asyncio.create_task(models.up()) for _ in range(50)]
            await api.is_asked.wait()
            waiting[0].cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting[0]
            goes_on.set()
            assert await asyncio.gather(*waiting[1:]) == [[]] * 49
            assert api.num_asked == 1, "also after the one who asked first has left"
            assert await models.up() == [] and api.num_asked == 2, "the next one asks anew"

    asyncio.run(run())


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"data": [{}]}', b'{"data": 3}'])
def test_a_list_that_is_none_is_an_api_that_is_not_there(body: bytes) -> None:
    async def run() -> None:
        async with Api(says(body)).models() as models:
            assert await models.up() == []

    asyncio.run(run())


def test_a_list_is_kept_for_the_next_visitors() -> None:
    async def run() -> None:
        api = Api(says(b'{"data": [{"id": "ash", "context_tokens": 100}]}'))
        async with api.models() as models:
            first, second = await models.up(), await models.up()
            assert [(m.name, m.max_tokens) for m in first] == [("ash", 100)]
            assert first == second and api.num_asked == 1

    asyncio.run(run())


def test_a_card_names_base_and_data_and_no_path() -> None:
    record = {
        "base_model": "/srv/secret/llama-7b/",
        "inputs": {"data": "9f8e7d6c5b4a", "base": "x"},
        "run": {"data": "s3://bucket/secret/pack-2026"},
        "tokens": 1_234_567,
        "created": "2026-11-29T06:01:45Z",
    }
    facts = _facts(record)
    assert facts == [
        ("Base", "llama-7b"),
        ("Data", "pack-2026, digest 9f8e7d6c"),
        ("Trained on", "1,234,567 tokens"),
        ("Made", "2026-11-29"),
    ]
    assert "secret" not in str(facts)


def test_no_longer_answer_is_offered_than_the_model_gives() -> None:
    """`limits.max_output_tokens` below the page's usual length once broke every chat."""

    async def run() -> None:
        async with Api(says(b'{"data": [{"id": "ash", "context_tokens": 4096}]}')).models(
            [PageModel(name="ash", max_output_tokens=64)]
        ) as models:
            up = await models.up()
            assert up[0].max_tokens == default_max_tokens(up) == 64

    asyncio.run(run())


def test_a_card_shows_what_spot_machines_saved_and_lost() -> None:
    cost = {"usd": 37.5, "usd_on_demand": 64.42, "lost_work_usd": 1.2, "lost_work_hours": 0.17}
    record = {"base_model": "/models/llama-7b", "usd": 37.5, "cost": cost}
    assert _facts(record) == [
        ("Base", "llama-7b"),
        ("Cost", "$37.50"),
        ("On demand", "$64.42"),
        ("Work lost", "$1.20"),
    ]
    assert _facts({"usd": 2.0, "cost": None}) == [("Cost", "$2.00")]
    assert _facts({"usd": 0.0}) == []  # of a machine for which nobody stated a price


def test_a_key_that_the_api_refuses_is_told_and_not_waited_for() -> None:
    async def refuses(writer: asyncio.StreamWriter) -> None:
        head = "HTTP/1.1 401 No\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
        writer.write(head.encode())
        await writer.drain()

    async def run() -> None:
        api = Api(refuses)
        async with api.models() as models:
            assert await models.up() == [] and "mend its key" in models.refusal
            api._answer = says(b'{"data": [{"id": "ash"}]}')
            assert len(await models.up()) == 1 and models.refusal == ""

    asyncio.run(run())
