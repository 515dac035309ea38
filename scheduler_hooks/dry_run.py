"""What `stage run --dry-run` prints: each copy with its source, its destination, its nodes, method and size."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from typing import Literal

from cluster.nodes import fold
from scheduler_hooks.job import Job
from scheduler_hooks.staging_plan import Inward, inward, outward
from staging.display import SCHEMA
from staging.mover.scan import scan
from staging.planning import Preview, link_of
from staging.units import human_bytes, human_seconds, printable


@dataclass(frozen=True)
class Copy:
    """One copy that would be made, as a `would-copy` event. `bytes` and `seconds` are 0 where not known."""

    direction: Literal["in", "out"]
    source: str
    dest: str
    nodes: tuple[str, ...]
    bytes: int
    seconds: float
    method: str
    detail: str
    on: str


@dataclass(frozen=True)
class Plan:
    """A job's copies, in the order in which they would be made."""

    job: str
    nodes: tuple[str, ...]
    scratch: str
    copies: tuple[Copy, ...]


def plan(job: Job) -> Plan:
    """What the job would copy. Reads the sources' sizes."""
    copies = [_inward(job, copy) for copy in inward(job)]
    for out in outward(job):
        for part in out.parts:
            dest = os.path.relpath(part.dest, job.base) + ("/" if part.dest.endswith("/") else "")
            copies.append(Copy("out", part.source, dest, (part.node.name,), 0, 0.0, out.method, "", out.on))
    return Plan(job.name, job.names(), job.scratch(job.nodes[0]), tuple(copies))


def _inward(job: Job, copy: Inward) -> Copy:
    source = os.path.relpath(copy.source, job.base) + ("/" if copy.contents else "")
    nodes = tuple(node.name for node in copy.nodes)
    if copy.method != "tree":
        size = sum(length for entry in scan([copy.source], copy.contents).entries for _, length in entry.data())
        return Copy("in", source, copy.dest, nodes, size, 0.0, copy.method, "", "")
    plan = Preview.of([copy.source], copy.contents, nodes, "auto", 0, link_of(copy.nodes[0].address))
    return Copy("in", source, copy.dest, nodes, plan.total, plan.seconds, copy.method, str(plan.plan.shape), "")


def render(planned: Plan) -> str:
    """One line for each copy."""
    lines = [f"job {planned.job} on {fold(planned.nodes)}, scratch {planned.scratch}"]
    for copy in planned.copies:
        far = f"{fold(copy.nodes)}:{copy.source if copy.direction == 'out' else copy.dest}"
        if copy.direction == "out":
            lines.append(f"out  {far} -> {copy.dest}  on {copy.on}, by {copy.method}")
        else:
            method = (
                f"{copy.method} ({copy.detail}, about {human_seconds(copy.seconds)})" if copy.detail else copy.method
            )
            lines.append(f"in   {copy.source} -> {far}  {human_bytes(copy.bytes)} each, by {method}")
    return "".join(f"{printable(line)}\n" for line in lines)


def as_events(planned: Plan) -> str:
    """A `would-copy` event for each copy, as lines of JSON."""
    head = {"type": "would-copy", "schema": SCHEMA, "time": time.time()}
    return "".join(json.dumps({**head, **asdict(copy)}) + "\n" for copy in planned.copies)
