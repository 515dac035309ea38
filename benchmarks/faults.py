"""Faults during a broadcast: what happens, against what is promised. On a test cluster in namespaces of this machine.

    python -m benchmarks.faults [--only WORDS]... [--size 128] [--out DIR]

One fault at a time strikes n4 of eight nodes (200 Mbit/s) when it has a third of the file, each on a cluster of its
own; then the same command is given again. Promised in every case: a node that is told to have the file has the right
bytes; no other has anything under the file's name; the exit code is the documented one; a line names what went wrong;
the same command again completes the copies and sends no finished file twice. Exits with 1 if a promise is broken.

Writes faults.md and faults.json into docs/benchmarks (with `--only` only where --out says). Needs root, sshd, nftables.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

from benchmarks import harness
from benchmarks.fault_cases import FAULTS, VICTIM, Fault
from benchmarks.rig import OUT, SOURCE, Copy, Pcp, Rig, empty, same, stage_up, staging_cluster
from tests.hosts import Cluster

MIB = 1 << 20
NODES = 8
RATE_MBIT = 200.0
MEMORY = "/dev/shm"  # for what outlives a node's power: a disk would be slower than the links
BUSY = 1.6  # what a quiet copy may take on a loaded machine, times the line's time
BUSY_SECONDS = 6.0


@dataclass
class Outcome:
    """What happened; `broken` names the promises that were not kept."""

    fault: str
    done: str
    at: float | None = None  # seconds from the command's start
    code: int = 0
    seconds: float = 0.0
    right: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    errors: str = ""
    under_final_names: list[str] = field(default_factory=list)  # of nodes that do not have the right bytes
    again: dict[str, Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


@contextmanager
def rigged(fault: Fault) -> Iterator[Rig]:
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-", dir=MEMORY))
        cluster = stack.enter_context(Cluster(NODES, rate=f"{RATE_MBIT:g}mbit", sshd=True, scratch=scratch))
        rig = Rig(cluster, None, RATE_MBIT)
        for node in cluster.nodes:
            empty(node.path(OUT))
        if fault.prepare is not None:
            fault.prepare(rig)
        good = [node for node in cluster.nodes if not fault.python or node.name != VICTIM]
        stack.enter_context(staging_cluster(cluster, good))
        if fault.python:
            stage_up(cluster, [cluster[VICTIM]], fault.python)
        yield rig


def strike(fault: Fault, size: int) -> Outcome:
    """Copy, strike, look, and copy again."""
    outcome = Outcome(fault.name, fault.done)
    with rigged(fault) as rig:
        rig.make_file(size)
        words = ["-f", "double", SOURCE, f"{OUT}/source", *rig.names]  # in which the victim is sure to feed another
        pcp = Pcp(rig.head, words)
        for event in pcp.events():
            if event["type"] == "progress" and event["node"] == VICTIM and event["bytes"] >= fault.at * size:
                outcome.at = time.time() - pcp.copy.began
                break
        if outcome.at is not None:
            fault.strike(rig, pcp)
        copy = pcp.end()
        look(outcome, copy, rig)
        judge(outcome, copy, fault, size)
        if fault.repair is not None:
            fault.repair(rig)
        again = Pcp(rig.head, words).end()
        fetched = {e["node"]: e["fetched"] for e in again.events if e["type"] == "node-done"}
        outcome.again = {"code": again.code, "seconds": again.seconds, "fetched": fetched, "failed": again.failed()}
        wrong = [name for name in rig.names if not same(rig.head.path(SOURCE), rig.cluster[name].path(f"{OUT}/source"))]
        if again.code != 0 or wrong:
            outcome.broken.append(
                f"again: exit code {again.code}, not right on {wrong}: {again.failed()} {again.errors}"
            )
        if twice := [name for name in outcome.right if fetched.get(name, 0)]:
            outcome.broken.append(f"again: sent once more to {', '.join(twice)}")
    return outcome


def look(outcome: Outcome, copy: Copy, rig: Rig) -> None:
    """The command's words, and what is on the nodes."""
    outcome.code, outcome.seconds = copy.code, copy.seconds
    outcome.failed, outcome.notes, outcome.errors = copy.failed(), copy.notes(), copy.errors.strip()
    source = rig.head.path(SOURCE)
    for name in rig.names:
        if rig.cluster[name].pid is None:
            continue
        path = rig.cluster[name].path(f"{OUT}/source")
        if same(source, path):
            outcome.right.append(name)
        elif path.exists():
            outcome.under_final_names.append(name)
    told = set(copy.done())
    if lies := told - set(outcome.right):
        outcome.broken.append(f"told done, but not right: {', '.join(sorted(lies))}")
    if outcome.under_final_names:
        outcome.broken.append(f"partial under the final name on {', '.join(outcome.under_final_names)}")


def judge(outcome: Outcome, copy: Copy, fault: Fault, size: int) -> None:
    """Hold the first copy against the promises."""
    broken = outcome.broken
    if outcome.at is None:
        broken.append("the fault never struck")
    if copy.code != fault.code:
        broken.append(f"exit code {copy.code}, not {fault.code}")
    if lacking := {f"n{number}" for number in range(1, NODES + 1)} - fault.fail - set(outcome.right):
        broken.append(f"no copy on {', '.join(sorted(lacking))}")
    said = "\n".join([*outcome.notes, *(f"{n}: {m}" for n, m in outcome.failed.items()), outcome.errors])
    if fault.says.lower() not in said.lower():
        broken.append(f"nothing says {fault.says!r}")
    limit = BUSY * size * 8 / (RATE_MBIT * 1e6) + BUSY_SECONDS + fault.seconds
    if copy.seconds > limit:
        broken.append(f"took {copy.seconds:.1f} s, more than {limit:.1f} s")


def markdown(outcomes: Sequence[Outcome], size: int) -> str:
    """The page docs/benchmarks/faults.md."""
    lines = [
        "# Faults during a broadcast",
        "",
        f"`python -m benchmarks.faults`: {size // MIB} MiB to {NODES} nodes at {RATE_MBIT:g} Mbit/s; one fault at a",
        f"time strikes {VICTIM}, then the same command is given again.",
        "",
        "| fault | done to it, when | nodes with the right bytes | the others | exit | s | partial under final names"
        " | the same command again | as promised |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(cells(outcome))} |" for outcome in outcomes]
    return "\n".join(lines) + "\n"


def cells(outcome: Outcome) -> tuple[str, ...]:
    at = "never" if outcome.at is None else f"at {outcome.at:.1f} s"
    said = [f"{name}: {message}" for name, message in outcome.failed.items()]
    said = said if len(said) <= 2 else [*said[:1], f"and so {len(said) - 1} more"]
    if not said and outcome.errors:
        said = [outcome.errors.splitlines()[-1]]
    if not said:
        said = [f"(note) {note}" for note in outcome.notes[:2]] or ["-"]
    again = outcome.again
    sent = sum(again["fetched"].values()) / MIB
    text = (
        outcome.fault,
        f"{outcome.done}, {at}",
        f"{len(outcome.right)} of {NODES}",
        "; ".join(said),
        str(outcome.code),
        f"{outcome.seconds:.1f}",
        ", ".join(outcome.under_final_names) or "none",
        f"exit {again['code']}, {again['seconds']:.1f} s, {sent:.0f} MiB sent",
        "yes" if not outcome.broken else "NO: " + "; ".join(outcome.broken),
    )
    return tuple(cell.replace("|", "/").replace("\n", " ") for cell in text)


@click.command()
@click.option("--only", multiple=True, help="Only faults with these words in their names; may be repeated.")
@click.option("--size", default=128, show_default=True, help="MiB.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the files go.")
def main(only: tuple[str, ...], size: int, out: Path | None) -> None:
    """Strike a running broadcast with one fault after another."""
    directory = out or (None if only else harness.DIRECTORY)
    outcomes = []
    for fault in FAULTS:
        if only and not any(words in fault.name for words in only):
            continue
        outcome = strike(fault, max(size, fault.size * size // 128) * MIB)
        print(f"{outcome.fault}: {'as promised' if not outcome.broken else outcome.broken}", file=sys.stderr)
        outcomes.append(outcome)
    text = markdown(outcomes, size * MIB)
    print(text)
    if directory is not None:
        report = {"machine": harness.machine(), "versions": harness.versions(), "size": size * MIB}
        rows = [asdict(outcome) for outcome in outcomes]
        harness.write(directory / "faults.json", json.dumps({**report, "faults": rows}, indent=2) + "\n")
        harness.write(directory / "faults.md", text)
    sys.exit(any(outcome.broken for outcome in outcomes))


if __name__ == "__main__":
    main()
