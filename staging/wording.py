"""The lines in which displays and reports tell of events and snapshots.

Names from outside pass through `printable`, so a line is one line and cannot steer the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable

from staging.mover.errors import from_wire
from staging.progress import Amount, Event, NodeProgress, Progress, Snapshot, State
from staging.units import human_bytes, human_rate, human_seconds, printable


def start_line(event: Event) -> str:
    """What a transfer-start says: `genome.fa: 1 file, 2.0 GiB to 4 nodes by tree (chain)`."""
    out = event["direction"] == "out"
    size = f"{count(event['files'], 'file')}, {human_bytes(event['bytes'])} "
    if out and not event["bytes"]:
        size = ""  # known only when the nodes have been asked
    detail = f" ({event['detail']})" if event["detail"] else ""
    ways = f"{'from' if out else 'to'} {count(len(event['nodes']), 'node')} by {event['method']}{detail}"
    return f"{printable(event['what'])}: {size}{ways}"


def event_line(event: Event, progress: Progress, now: float) -> str:
    """What is to be told at once of an event that `progress` has already taken in; often nothing ("")."""
    transfer = progress.transfer(event.get("transfer", ""), now)
    what = transfer.what if transfer else event.get("transfer", "")
    if event["type"] == "note":
        place = f"{event['node']}: " if event["node"] else ""  # none: the command's own host
        return f"{printable(what)}: {place}{printable(event['message'])}"
    if event["type"] == "node-failed":
        return failure_line(what, event)
    if event["type"] != "transfer-end" or transfer is None:
        return ""
    ok, failed, seconds = len(event["ok"]), len(event["failed"]), event["seconds"]
    if failed and not ok:
        return f"{printable(what)}: failed on {'all ' if failed > 1 else ''}{count(failed, 'node')}"
    out = transfer.direction == "out"
    if event["bytes"] and not failed and not out and not any(node.fetched for node in transfer.nodes):
        there = f"already there on {'all ' if ok > 1 else ''}{count(ok, 'node')}, nothing sent"
        return f"{printable(what)}: {there}, {human_seconds(seconds)}"
    size = human_amount(transfer.direction, event["bytes"], ok)
    rate = human_rate(sum(node.fetched for node in transfer.nodes), seconds)
    parts = [f"done on {ok} of {count(ok + failed, 'node')}", f"{size} in {human_seconds(seconds)}", rate]
    if not ok:
        parts = [f"failed on {'all ' if failed > 1 else ''}{count(failed, 'node')}"]
    return f"{printable(what)}: {_join(parts)}"


def failure_line(what: str, event: Event, nodes: str = "") -> str:
    """The line for a node-failed event, with the remedy, and whether a later run can resume.

    `nodes`: those for which the same holds, if it is not the event's one alone.
    """
    resumable = " (a resumable partial replica is left there)" if event["partial"] else ""
    return f"{printable(what)}: {nodes or event['node']} failed: {printable(str(from_wire(event['error'])))}{resumable}"


def human_amount(direction: str, size: int, nodes: int) -> str:
    """The size of a transfer to or from `nodes` nodes: "4 x 2.0 GiB" where each holds a replica of its own."""
    each = direction != "out" and nodes > 1
    return f"{nodes} x {human_bytes(size)}" if each else human_bytes(size)


def progress_line(snapshot: Snapshot) -> str:
    """Where the transfers under way stand, their nodes taken together."""
    transfers = snapshot.transfers
    name = printable(transfers[0].what) if len(transfers) == 1 else f"{len(transfers)} transfers"
    parts = [percent(snapshot), of_total(snapshot), human_rate(snapshot.rate, 1)]
    if snapshot.eta is not None:
        parts.append(f"eta {human_seconds(snapshot.eta)}")
    nodes = [node for transfer in transfers for node in transfer.nodes]
    parts.append(f"{sum(n.state is State.DONE for n in nodes)} of {count(len(nodes), 'node')} done")
    queued = [node.position for node in nodes if node.state is State.QUEUED]
    if queued:
        parts.append(f"{len(queued)} queued (first at position {min(queued)})")
    failed = sum(node.state is State.FAILED for node in nodes)
    if failed:
        parts.append(f"{failed} failed")
    return f"{name}: {_join(parts)}"


def node_state(node: NodeProgress) -> str:
    if node.state is State.QUEUED:
        return f"queued {node.position}"
    return eta(node) if node.state is State.MOVING else str(node.state)


def eta(amount: Amount) -> str:
    return "-" if amount.eta is None else f"eta {human_seconds(amount.eta)}"


def percent(amount: Amount) -> str:
    return "" if amount.fraction is None else f"{int(100 * amount.fraction)}%"


def of_total(amount: Amount) -> str:
    there = human_bytes(amount.bytes)
    return there if amount.total is None else f"{there} of {human_bytes(amount.total)}"


def count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _join(parts: Iterable[str]) -> str:
    """The parts that say something."""
    return ", ".join(part for part in parts if part not in ("", "-"))
