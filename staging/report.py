"""The report at the end: who got what, how fast, and what went wrong.

`Report` takes the events of docs/events.md and keeps the outcome of each node of each transfer.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from cluster.nodes import fold
from staging.mover.errors import Interrupted, PartialError, StageError, from_wire
from staging.progress import Event
from staging.units import human_bytes, human_rate, human_seconds, printable
from staging.wording import failure_line, human_amount

_HEADINGS = ("what", "way", "nodes", "files", "bytes", "time", "rate", "digest")
_RIGHT = frozenset({"files", "bytes", "time", "rate"})
_FAILURES_SHOWN = 3
_DIGEST_SHOWN = 16  # hex digits


@dataclass(slots=True)
class _Transfer:
    start: Event
    done: dict[str, Event] = field(default_factory=dict)
    failed: dict[str, Event] = field(default_factory=dict)
    end: Event | None = None

    def row(self) -> tuple[str, ...]:
        planned = len(self.start["nodes"])
        nodes = fold(self.done) if self.done else "-"
        if len(self.done) < planned:
            nodes += f" ({len(self.done)} of {planned})"
        size, seconds, rate, digest = "-", "-", "-", ""
        if self.end is not None:
            size = human_amount(self.start["direction"], self.end["bytes"], len(self.done))
            seconds = human_seconds(self.end["seconds"])
            rate = human_rate(sum(done["fetched"] for done in self.done.values()), self.end["seconds"])
            digest = self.end["digest"]
        what, way, files = (
            printable(self.start["what"]),
            self.start["direction"],
            str((self.end or self.start).get("files", self.start["files"])),
        )
        return (what, way, nodes, files, size, seconds, rate, digest[:_DIGEST_SHOWN] or "-")

    def unheard(self) -> list[str]:
        """The nodes that were neither reported done nor failed."""
        return [node for node in self.start["nodes"] if node not in self.done and node not in self.failed]

    def lines(self) -> list[str]:
        what = self.start["what"]
        alike: dict[str, list[str]] = defaultdict(list)
        for node, event in self.failed.items():
            alike[failure_line("", event, " ")].append(node)
        lines = [failure_line(what, self.failed[nodes[0]], fold(nodes)) for nodes in alike.values()]
        unheard = self.unheard()
        if unheard:
            lines.append(f"{printable(what)}: {fold(unheard)}: not finished")
        there: dict[str, list[str]] = defaultdict(list)
        for node, event in self.done.items():
            if event["reused"]:
                there[f"{human_bytes(event['reused'])} of {human_bytes(event['bytes'])}"].append(node)
        for amount, nodes in there.items():
            each = " each" if len(nodes) > 1 else ""
            lines.append(f"{printable(what)}: {fold(nodes)}: {amount}{each} were already there")
        return lines

    def failure(self) -> str:
        """In a few words where it failed, or ""."""
        bad = [node for node in self.start["nodes"] if node not in self.done]
        where = f"all {len(bad)} nodes" if len(bad) > 1 and not self.done else fold(bad)
        return f"{printable(self.start['what'])} failed on {where}" if bad else ""

    def exit_codes(self) -> list[int]:
        failed = [from_wire(event["error"]).exit_code for event in self.failed.values()]
        return [0] * len(self.done) + failed + [Interrupted.exit_code] * len(self.unheard())


class Report:
    """The outcome of all transfers of a command. A node's last node-done or node-failed counts."""

    def __init__(self) -> None:
        self._transfers: dict[str, _Transfer] = {}

    def update(self, event: Event) -> None:
        """Take in one event; those that say nothing of an outcome, or of an unknown transfer, are ignored."""
        if event["type"] == "transfer-start":
            self._transfers[event["transfer"]] = _Transfer(event)
            return
        transfer = self._transfers.get(event.get("transfer", ""))
        if transfer is None:
            return
        if event["type"] == "transfer-end":
            transfer.end = event
        elif event["type"] in ("node-done", "node-failed"):
            good = event["type"] == "node-done"
            kept, dropped = (transfer.done, transfer.failed) if good else (transfer.failed, transfer.done)
            kept[event["node"]] = event
            dropped.pop(event["node"], None)

    def text(self) -> str:
        """The table, a line a transfer, and below it a line a failed node and what was reused; "" if empty.

        "nodes" are those that are complete. "rate" is of the bytes that came over the wire, all nodes
        together. A digest is cut to its first 16 hex digits.
        """
        if not self._transfers:
            return ""
        rows = [_HEADINGS, *(transfer.row() for transfer in self._transfers.values())]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(_pad, _HEADINGS, row, widths)).rstrip() for row in rows]
        lines += [line for transfer in self._transfers.values() for line in transfer.lines()]
        return "\n".join(lines) + "\n"

    def exit_code(self) -> int:
        """The exit code for a command that did these transfers.

        0 when every node of every transfer is done. 3 when some are. When none is: the exit code that all
        their errors share, else 3. A node of which no end was reported counts as interrupted (5).
        """
        codes = {code for transfer in self._transfers.values() for code in transfer.exit_codes()}
        if not codes:
            return 0
        return codes.pop() if len(codes) == 1 else PartialError.exit_code

    def failure(self) -> StageError | None:
        """What failed where, as the error with which the command ends; None where everything is done."""
        code = self.exit_code()
        if not code:
            return None
        failures = list(filter(None, (transfer.failure() for transfer in self._transfers.values())))
        if len(failures) > _FAILURES_SHOWN:
            failures[_FAILURES_SHOWN:] = [f"{len(failures) - _FAILURES_SHOWN} more failed"]
        errors = [from_wire(event["error"]) for each in self._transfers.values() for event in each.failed.values()]
        kind = next((type(error) for error in errors if error.exit_code == code), PartialError)
        error = kind(", ".join(failures))
        error.exit_code, error.remedy = code, ""  # each failure's own line has one
        return error


def _pad(heading: str, cell: str, width: int) -> str:
    return cell.rjust(width) if heading in _RIGHT else cell.ljust(width)
