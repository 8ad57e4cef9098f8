"""The page's way to the API, over connections that end when it suits the other side."""

import asyncio
import contextlib
import json

from apps.serve.page.answers.client import ChatClient

EVENT = {"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]}
STREAM = f"data: {json.dumps(EVENT)}\n\ndata: [DONE]\n\n".encode()
LIST = b'{"data": [{"id": "ash"}]}'


_handlers: set[asyncio.Task[None]] = set()


async def _answers_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As a server does whose patience with an idle connection ends when it is used again."""
    _handlers.add(asyncio.current_task())
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        head = await reader.readuntil(b"\r\n\r\n")
        body = LIST if head.startswith(b"GET") else STREAM
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        await reader.readuntil(b"HTTP/1.1")
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def test_a_connection_that_the_api_has_given_up_costs_no_answer() -> None:
    async def run() -> None:
        async with await asyncio.start_server(_answers_once, "127.0.0.1", 0) as server:
            client = ChatClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", "")
            for _ in range(3):
                assert [model.name for model in await client.models()] == ["ash"]
                pieces = [piece async for piece in client.stream("ash", [], {})]
                assert [piece.text for piece in pieces] == ["Hi"]
            await client.close()
            await asyncio.gather(*_handlers)

    asyncio.run(run())
