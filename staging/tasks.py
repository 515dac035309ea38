"""The Dask tasks of a transfer, each pinned to the node it concerns: open a mover, run it, let it go.

A task answers with the mover's event, an error included: nothing is raised, so Dask neither logs the arguments nor
tries again. The mover outlives its `run` task, since other nodes may still fetch from it; the head's `finish` ends it.
"""

from __future__ import annotations

import threading
from typing import Any

from distributed import secede

from cluster.agent import Agent, current
from cluster.fleet import Secret
from cluster.launch_request import LaunchRequest
from staging.mover.errors import Interrupted, StageError
from staging.orders import Membership, complete
from staging.pipe import MoverPipe

OPEN_SECONDS = 60  # a source may have a hundred thousand files to look at
SHUTDOWN_SECONDS = 5

_movers: dict[str, MoverPipe] = {}
_lock = threading.Lock()


def open_mover(membership: Secret, order: dict[str, Any], request: LaunchRequest, credential: Secret) -> dict[str, Any]:
    """Start the mover for `order` and return its `opened` event."""
    secede()
    agent = current()
    member: Membership = membership.value
    try:
        pipe = _start(agent, member, request, credential.value)
    except StageError as error:
        return {"event": "error", "error": error.to_wire(), "partial": False}
    with _lock:
        _movers[member.transfer] = pipe
    agent.add(member.transfer, lambda order: _control(agent, member.transfer, pipe, order))
    pipe.send(complete(order, member, agent.address, agent.root))
    return _expect(pipe, "opened", OPEN_SECONDS)


def run_mover(transfer: str, order: dict[str, Any], until: str) -> dict[str, Any]:
    """Give the mover its order (none for a source) and wait until it says `until` or ends."""
    secede()
    with _lock:
        pipe = _movers.get(transfer)
    if pipe is None:
        return {"event": "error", "error": Interrupted("the transfer was stopped").to_wire(), "partial": False}
    if order:
        pipe.send(order)
    return _expect(pipe, until, None)


def _start(agent: Agent, member: Membership, request: LaunchRequest, credential: str) -> MoverPipe:
    def forward(event: dict[str, Any]) -> None:
        agent.send(member.transfer, event)

    return MoverPipe(agent.launcher, request, credential, forward, log=2)


def _expect(pipe: MoverPipe, until: str, timeout: float | None) -> dict[str, Any]:
    try:
        return pipe.expect(until, timeout=timeout)
    except StageError as error:
        return {"event": "error", "error": error.to_wire(), "partial": True}


def _control(agent: Agent, transfer: str, pipe: MoverPipe, order: dict[str, Any]) -> None:
    """Pass an order on; the last one also ends the mover and forgets it. `kill` is for a mover that is stuck."""
    if order["op"] == "kill":
        pipe.kill()
    else:
        pipe.send(order)
    if order["op"] in ("finish", "abort", "kill"):
        agent.remove(transfer)
        with _lock:
            _movers.pop(transfer, None)
        stuck = threading.Timer(SHUTDOWN_SECONDS, pipe.kill)
        stuck.daemon = True
        stuck.start()
        try:
            pipe.end()
        finally:
            stuck.cancel()
