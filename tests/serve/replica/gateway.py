"""The API over a replica in this process: all of the way to it but Ray's own."""

from typing import Any

from apps.serve.model.entry import Entry
from apps.serve.model.served import ServedModel
from apps.serve.replica.exchange import Exchange, ReplicaBackend
from apps.serve.replica.replica import ModelReplica
from tests.serve.api import Api
from tests.serve.replica.call import Call, ServeHandle


class Handle(ServeHandle):
    """A Serve handle to one replica in this process."""

    def __init__(self, replica: ModelReplica) -> None:
        self.replica = replica

    def remote(self, payload: bytes, address) -> Call:
        return Call(self.replica.generate(payload, address))


async def gateway_of(replica: ModelReplica, served: ServedModel) -> tuple[Api, Exchange]:
    """Close the exchange."""

    async def ask_all(method: str, *arguments: Any) -> list[Any]:
        return [getattr(replica, method)(*arguments)]

    api, exchange = Api(served, replica.engine), Exchange()
    await exchange.start("127.0.0.1")
    backend = ReplicaBackend(Handle(replica), exchange, "app", ask_all)
    api.directory.entries["scripted"] = Entry(model=served, backend=backend)
    return api, exchange
