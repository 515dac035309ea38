"""A job as every scheduler has it: the one interface between directives and whoever runs jobs. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cluster.nodes import fold
from scheduler_hooks.jobscript import JobScript
from scheduler_hooks.patterns import Values, fill

ENV_KILL_WAIT = "STAGE_KILL_WAIT"
DEFAULT_SCRATCH = "/scratch/stage-%j"


@dataclass(frozen=True)
class JobNode:
    """A node of the job; `root` is where its file tree starts on this machine, "" for a node of its own."""

    name: str
    rank: int
    address: str
    root: str = ""


@dataclass(frozen=True)
class Job:
    """Who runs what where. `base` is the directory in which the user submitted it."""

    id: str
    name: str
    user: str
    base: str
    nodes: tuple[JobNode, ...]
    script: JobScript

    def names(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.nodes)

    def values(self, node: JobNode | None = None) -> Values:
        """What the filename patterns stand for, on one node or on none."""
        if node is None:
            return Values(self.id, self.user, self.name)
        return Values(self.id, self.user, self.name, node.name, node.rank)

    def scratch(self, node: JobNode) -> str:
        """The job's directory as the node names it."""
        return fill(self.script.scratch or DEFAULT_SCRATCH, self.values(node))

    def on_node(self, node: JobNode, path: str) -> str:
        """A node-side path of a directive: relative ones are inside the scratch directory. A trailing slash stays."""
        return posixpath.join(self.scratch(node), fill(path, self.values(node)))

    def real(self, node: JobNode, path: str) -> str:
        """The path by which a process of the node reaches what the node calls `path`; never above the node's root."""
        return posixpath.join(node.root, posixpath.normpath("/" + path).lstrip("/")) if node.root else path

    def scratches(self, names: Collection[str]) -> list[str]:
        """Where these nodes' scratch directories are, for people: `n[1-2]:/scratch/stage-7`.

        For nodes whose trees are on this machine the path here, with the folded names in place of the node's.
        """
        found: dict[str, list[str]] = {}
        for node in self.nodes:
            if node.name in names:
                path = self.real(node, self.scratch(node))
                name = rf"(?<![\w.-]){re.escape(node.name)}(?![\w.-])"
                place = re.sub(name, "\0", path if node.root else f"{node.name}:{path}")
                found.setdefault(place, []).append(node.name)
        return [place.replace("\0", fold(members)) for place, members in found.items()]

    def environment(self, node: JobNode) -> dict[str, str]:
        """The STAGE_ variables that a process of the job sees on this node."""
        return {
            "STAGE_DIR": self.real(node, self.scratch(node)),
            "STAGE_JOB_ID": self.id,
            "STAGE_JOB_NAME": self.name,
            "STAGE_NODELIST": ",".join(self.names()),
            "STAGE_NNODES": str(len(self.nodes)),
            "STAGE_RANK": str(node.rank),
            "STAGE_NODE": node.name,
        }


def fit_nodes(script: JobScript, requested: int | None, up: Sequence[str]) -> tuple[str, ...] | None:
    """The nodes the job gets out of those that are up; None when there are not enough.

    `--nodes` on the command line wins over the script's own request; without either the job gets every node.
    """
    wanted = script.nodes
    if requested is not None:
        return tuple(up[:requested]) if len(up) >= requested else None
    if wanted is None:
        return tuple(up)
    if wanted.names:
        return wanted.names if set(wanted.names) <= set(up) else None
    return tuple(up[: wanted.count]) if len(up) >= wanted.count else None
