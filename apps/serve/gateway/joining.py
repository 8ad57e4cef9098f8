"""Where workers elsewhere announce themselves: PUT and DELETE /pools/NAME/workers/ID.

GET /pools/NAME/workers lists those that are there.
"""

import re

from fastapi import FastAPI, Request
from starlette.responses import Response

from apps.common.errors import ConfigError
from apps.serve.config import ApiKey, Prices
from apps.serve.engine.config import PoolConfig
from apps.serve.errors import ApiError, sentence
from apps.serve.gateway.account import Account
from apps.serve.gateway.body import Settings, read_body, request_schema
from apps.serve.gateway.respond import json_response
from apps.serve.gateway.worker_body import WorkerBody
from apps.serve.model.directory import Directory
from apps.serve.model.pool import PoolEntry
from apps.serve.model.workers import LEASE_S, Announcement

_WORKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,95}")


def add_joining(api: FastAPI, directory: Directory, settings: Settings) -> None:
    path = "/pools/{pool:path}/workers/{worker}"

    @api.put(path, openapi_extra=request_schema(WorkerBody))
    async def announce(request: Request, pool: str, worker: str) -> Response:
        owner = _owner(request, directory, pool)
        _check_id(directory, owner, pool, worker)
        body = await read_body(request, WorkerBody, settings())
        there = directory.workers.said_by(pool, worker)
        if there is not None and there.base_url != body.base_url:  # each would throw the other out
            raise ApiError(
                409,
                f"The worker {worker!r} is there already, at another base_url; take another id, or "
                f"wait {LEASE_S:g} s after its end.",
            )
        said = Announcement(
            pool=pool,
            worker=worker,
            owner=owner.name,
            base_url=body.base_url,
            model=body.model,
            health_url=body.health_url or "",
            api_key=body.api_key,
            weight=body.weight,
            continues=body.continues,
            prices=Prices(**body.prices.model_dump()),
            leaves=body.leaves,
        )
        try:
            said.config()
        except ConfigError as error:
            raise ApiError(400, sentence(str(error))) from error
        running = await directory.announce(said)
        return json_response({"pool": pool, "lease_s": LEASE_S, "running": running})

    @api.delete(path)
    async def leave(request: Request, pool: str, worker: str) -> Response:
        owner = _owner(request, directory, pool)
        _check_id(directory, owner, pool, worker)
        gone = Announcement(
            pool=pool, worker=worker, owner=owner.name, base_url="", model="", is_gone=True
        )
        await directory.announce(gone)
        return json_response({"pool": pool})

    @api.get("/pools/{pool:path}/workers")
    async def workers(request: Request, pool: str) -> Response:
        _owner(request, directory, pool)
        there = directory.workers.of(pool)
        states = [
            {"id": worker, "is_up": one.is_up, "leaves": one.is_leaving, "running": one.running}
            for worker, one in there.items()
        ]
        return json_response({"pool": pool, "workers": states})


def _owner(request: Request, directory: Directory, pool: str) -> ApiKey:
    """Of a key that may join this pool. Raises ApiError 403 or 404."""
    owner = Account.of(request.scope).owner
    if owner is None or pool not in owner.may_join:
        raise ApiError(
            403,
            f"Joining {pool[:96]!r} takes a key that may; make one with `python -m apps.serve keys "
            "add NAME --may-join POOL`, and name its file in gateway.keys_file.",
            code="may_not_join",
        )
    entry = directory.entries.get(pool)  # by its name: an alias would never be found again
    config = entry.config.engine_config("") if isinstance(entry, PoolEntry) else None
    if not isinstance(config, PoolConfig):
        raise ApiError(404, f"The model {pool[:96]!r} is no pool.")
    if not config.joinable:
        raise ApiError(403, f"The pool {pool!r} is closed; set its options.joinable to true.")
    return owner


def _check_id(directory: Directory, owner: ApiKey, pool: str, worker: str) -> None:
    """Raises ApiError 400 or 403."""
    if not _WORKER.fullmatch(worker):
        raise ApiError(400, f"The worker's id {worker[:96]!r} is not usable.")
    config = directory.entries[pool].config.engine_config("")
    named = {member.model for member in config.members} if isinstance(config, PoolConfig) else ()
    there = directory.workers.said_by(pool, worker)
    if (there is not None and there.owner != owner.name) or worker in named:
        raise ApiError(403, f"There is a back end {worker!r} already; take another id.")
