"""From directives to copies: what goes where, from whom to whom, by which method. Pure."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from scheduler_hooks.job import Job, JobNode
from scheduler_hooks.jobscript import StageIn, StageOut, is_directory_form
from scheduler_hooks.patterns import fill
from staging.mover.errors import UsageError

METHODS = {"auto": "tree", "tree": "tree", "direct": "direct"}
DIRECT_SHAPE = "tree:{}"


@dataclass(frozen=True)
class Inward:
    """One broadcast: a source on the user's side to the same destination on some nodes. `dest` as a node names it."""

    label: str
    line: int
    source: str
    contents: bool
    dest: str
    into: Literal["auto", "always"]
    nodes: tuple[JobNode, ...]
    method: str

    def shape(self) -> str:
        """ "direct" lets the source feed every node itself; otherwise the planner chooses."""
        return DIRECT_SHAPE.format(len(self.nodes)) if self.method == "direct" and len(self.nodes) > 1 else "auto"


@dataclass(frozen=True)
class Outward:
    """One `out` directive: from each node its own source to its own destination on the user's side."""

    label: str
    line: int
    what: str
    method: str
    on: Literal["success", "failure", "always"]
    parts: tuple[OutPart, ...]


@dataclass(frozen=True)
class OutPart:
    """One node's share of an `out`."""

    node: JobNode
    source: str
    contents: bool
    dest: str
    into: Literal["auto", "always"]


def inward(job: Job) -> list[Inward]:
    """The broadcasts of all `in` directives, in order. UsageError for a method that is not there."""
    return [copy for item in job.script.inputs for copy in _inward(job, item)]


def _inward(job: Job, item: StageIn) -> list[Inward]:
    method = METHODS.get(item.via)
    if method is None:
        raise UsageError(f"{job.script.name}:{item.line}: via={item.via} is not available yet", "write via=auto")
    members = set(item.to.resolve(job.names()))
    groups: dict[tuple[str, str], list[JobNode]] = {}
    for node in job.nodes:
        if node.name in members:
            key = (fill(item.src, job.values(node)), job.on_node(node, item.dest))
            groups.setdefault(key, []).append(node)
    copies = []
    for number, ((source, dest), nodes) in enumerate(groups.items()):
        label = f"in:{item.line}" + (f".{number}" if len(groups) > 1 else "")
        path = os.path.join(job.base, source)
        into = _into(path, os.path.isdir(path))
        copies.append(Inward(label, item.line, path, is_directory_form(source), dest, into, tuple(nodes), method))
    return copies


def outward(job: Job) -> list[Outward]:
    """The copies of all `out` directives, in order."""
    return [_outward(job, item) for item in job.script.outputs]


def _outward(job: Job, item: StageOut) -> Outward:
    members = set(item.from_.resolve(job.names()))
    parts = []
    for node in job.nodes:
        if node.name in members:
            source = job.on_node(node, item.src)
            dest = os.path.join(job.base, fill(item.dest, job.values(node)))
            parts.append(OutPart(node, source, is_directory_form(item.src), dest, "auto"))
    method = "direct" if item.via == "direct" else "ticket"
    return Outward(f"out:{item.line}", item.line, item.src, method, item.on, tuple(parts))


def _into(path: str, directory: bool) -> Literal["auto", "always"]:
    """rsync's rule: a directory named without a trailing slash always lands inside the destination."""
    return "always" if directory and not is_directory_form(path) else "auto"


def due(on: str, exit_code: int) -> bool:
    """Whether an `out` with this `on=` is carried out after the job ended with `exit_code`."""
    return on == "always" or (on == "success") == (exit_code == 0)
