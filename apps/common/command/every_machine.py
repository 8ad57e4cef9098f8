"""Whether every machine of a Ray cluster reads and writes the same folders as this one.

A path of one machine's disk is another folder on the next: workers would find no data, or write
shards that nobody finds. That, and a bucket that a worker may not read, is said in one sentence
before any work. One machine alone asks nothing.
"""

# ray carries no types:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUntypedFunctionDecorator=false

import contextlib
import os
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TypedDict, cast

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from apps.common.errors import CriaError, InputError, in_one_line
from apps.common.files import config as configs
from apps.common.files import storage

WAIT_S = 120
_MEND = "give a bucket (s3://, gs://), or a folder that all machines mount"


class Node(TypedDict):
    """What Ray tells of a node, as far as it is used here."""

    Alive: bool
    NodeID: str
    NodeManagerAddress: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What another machine is asked to look for."""

    reads: Mapping[str, tuple[str, str]]
    """What a sentence calls it -> URI and what it looks like here."""
    out: str
    probe: str | None
    """A path inside of a local `out`."""


def require_shared(reads: Mapping[str, str], out: str) -> None:
    """InputError where another machine sees other inputs or another --out, or none at all.

    `reads`: what a sentence calls it -> URI. Needs a Ray that is connected. Where nothing was begun
    in `out`, nothing is left there.
    """
    machines = _other_machines()
    if not machines:
        return
    fault = _first_fault(reads, out, machines)
    if fault is not None:
        configs.forget_resolved(out)
        raise InputError(fault)


def _first_fault(reads: Mapping[str, str], out: str, machines: Mapping[str, str]) -> str | None:
    """A sentence; `machines`: address -> node."""
    with _probe(storage.absolute(out)) as probe:
        uris = {name: storage.absolute(uri) for name, uri in reads.items()}
        seen = {name: (uri, looks_like(uri)) for name, uri in uris.items()}
        asked = Asked(reads=seen, out=storage.absolute(out), probe=probe)
        answers = {
            address: _look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, False))
            .remote(asked)
            for address, node in machines.items()
        }  # fmt: skip
        for address, answer in answers.items():
            fault = _answer(answer, address)
            if fault is not None:
                return f"On {address}, one of {len(machines) + 1} machines: {fault}."
    return None


def _answer(answer: "ray.ObjectRef[str | None]", address: str) -> str | None:
    try:
        return ray.get(answer, timeout=WAIT_S)
    except RayError as error:
        reason = in_one_line(error, 200)
        raise CriaError(
            f"{address} could not say within {WAIT_S} s which folders it sees ({reason}); look at "
            "that machine in Ray's dashboard, then run again."
        ) from error


def _other_machines() -> dict[str, str]:
    """Address -> node, of those that are not this machine."""
    here = ray.get_runtime_context().get_node_id()
    alive = [node for node in cast(list[Node], ray.nodes()) if node["Alive"]]
    own = {node["NodeManagerAddress"] for node in alive if node["NodeID"] == here}
    return {
        node["NodeManagerAddress"]: node["NodeID"]
        for node in alive
        if node["NodeManagerAddress"] not in own
    }


@contextlib.contextmanager
def _probe(out: str) -> Generator[str | None]:
    """A file in --out for as long as the block lasts; a bucket needs none."""
    if not storage.is_local(out):
        yield None
        return
    storage.claim(out)
    with tempfile.NamedTemporaryFile(dir=storage.local_path(out), prefix=".probe-") as file:
        yield file.name


@ray.remote(num_cpus=0)
def _look(asked: Asked) -> str | None:
    return fault_here(asked)


def fault_here(asked: Asked) -> str | None:
    """What is wrong on this machine, as the end of a sentence."""
    if asked.probe is not None and not os.path.exists(asked.probe):
        return f"--out {asked.out} is another folder there; {_MEND}"
    try:
        if asked.probe is None:
            storage.exists(asked.out)
        for name, (uri, expected) in asked.reads.items():
            if looks_like(uri) != expected:
                return f"{name} is not there, or is another; {_MEND}"
    except CriaError as error:
        reason = error.sentence.rstrip(".")
        return f"{reason}; its Ray must be started with the credentials of the bucket"
    return None


def looks_like(uri: str) -> str:
    """Enough to tell two folders of one name apart; copies of the same files look the same."""
    if storage.is_dir(uri):
        return " ".join(storage.list_dir(uri))
    files = [uri] if storage.exists(uri) else storage.glob(uri)
    return "\n".join(f"{file}: {storage.size_bytes(file)} bytes" for file in files)
