"""What `stage run --dry-run` prints: each copy with its source, its destination, its nodes, method and size."""

from __future__ import annotations

import os

from cluster.nodes import fold
from scheduler_hooks.job import Job
from scheduler_hooks.staging_plan import inward, outward
from staging.planning import Preview, link_of
from staging.units import human_bytes, human_seconds


def render(job: Job) -> str:
    """One line for each copy, in the order in which they would be made."""
    lines = [f"job {job.name} on {fold(job.names())}, scratch {job.scratch(job.nodes[0])}"]
    for copy in inward(job):
        names = [node.name for node in copy.nodes]
        plan = Preview.of([copy.source], copy.contents, names, "auto", 0, link_of(copy.nodes[0].address))
        method = (
            f"tree ({plan.plan.shape}, about {human_seconds(plan.seconds)})" if copy.method == "tree" else copy.method
        )
        source = os.path.relpath(copy.source, job.base) + ("/" if copy.contents else "")
        lines.append(f"in   {source} -> {fold(names)}:{copy.dest}  {human_bytes(plan.total)} each, by {method}")
    for out in outward(job):
        for part in out.parts:
            dest = os.path.relpath(part.dest, job.base) + ("/" if part.dest.endswith("/") else "")
            lines.append(f"out  {part.node.name}:{part.source} -> {dest}  on {out.on}, by {out.method}")
    return "\n".join(lines) + "\n"
