"""A job script as its directives describe it, and what of it clashes once the job's nodes are known. Pure.

Paths are kept as they are written; patterns (see `patterns`) are filled in by whoever knows the node. On the node's
side a relative path is inside the job's scratch directory.
"""

from __future__ import annotations

import difflib
import posixpath
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cluster import nodes as nodesets
from scheduler_hooks.patterns import Values, fill
from staging.mover.errors import UsageError

InMethod = Literal["auto", "tree", "stripe", "multicast", "direct"]
OutMethod = Literal["auto", "ticket", "direct"]
Outcome = Literal["success", "failure", "always"]


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a script: the line (from 1), what is wrong, what to write instead."""

    line: int
    message: str
    remedy: str

    @classmethod
    def of(cls, line: int, error: UsageError) -> Problem:
        return cls(line, error.message, error.remedy)


@dataclass(frozen=True)
class Target:
    """The nodes that `to=` or `from=` means; `rank` (from 0) belongs to kind "rank", `names` to kind "nodes"."""

    kind: Literal["all", "first", "rank", "nodes"]
    rank: int = 0
    names: tuple[str, ...] = ()

    def resolve(self, nodes: Sequence[str]) -> tuple[str, ...]:
        """Those of the job's `nodes` that are meant, in the job's order; UsageError if one is not of the job."""
        if self.kind == "all":
            return tuple(nodes)
        if self.kind == "nodes":
            known, wanted = set(nodes), set(self.names)
            for name in self.names:
                if name not in known:
                    meant = difflib.get_close_matches(name.lower(), ("all", "first"), 1)
                    remedy = f"write {meant[0]}" if meant else f"choose from {nodesets.fold(nodes)}"
                    raise UsageError(f"{name} is not a node of this job", remedy)
            return tuple(node for node in nodes if node in wanted)
        if self.rank >= len(nodes):
            count = f"{len(nodes)} node" + "s" * (len(nodes) != 1)
            raise UsageError(f"there is no rank {self.rank} in a job of {count}", f"write a rank below {len(nodes)}")
        return (nodes[self.rank],)

    def values(self, nodes: Sequence[str], values: Values) -> list[Values]:
        """`values` completed for each node of `resolve(nodes)`; the rank is the node's place in `nodes`."""
        ranks = {node: rank for rank, node in enumerate(nodes)}
        return [replace(values, node=node, rank=ranks[node]) for node in self.resolve(nodes)]


@dataclass(frozen=True)
class StageIn:
    """`in`: from `src` on the user's side to `dest` on the nodes of `to`."""

    line: int
    src: str
    dest: str
    to: Target
    via: InMethod


@dataclass(frozen=True)
class StageOut:
    """`out`: from `src` on the nodes of `from_` to `dest` on the user's side, if the job ends as `on` says."""

    line: int
    src: str
    dest: str
    from_: Target
    via: OutMethod
    on: Outcome


@dataclass(frozen=True)
class NodeRequest:
    """`nodes`: how many, and which if they were named (`names` is empty for a bare number)."""

    line: int
    count: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobScript:
    """`interpreter` is the #! line as the kernel splits it: a program and at most one argument."""

    name: str
    text: str
    interpreter: tuple[str, ...]
    inputs: tuple[StageIn, ...]
    outputs: tuple[StageOut, ...]
    scratch: str | None
    nodes: NodeRequest | None


def is_directory_form(path: str) -> bool:
    """Whether `path` can only be a directory, and as a source means its contents: `a/`, `.`, `..`, as for rsync."""
    return posixpath.basename(path) in ("", ".", "..")


def landing(src: str, dest: str) -> str:
    """The path SRC is to get: DEST/basename(SRC) if DEST has a directory's form and SRC has not, else DEST."""
    if is_directory_form(dest) and not is_directory_form(src):
        dest = posixpath.join(dest, posixpath.basename(src))
    return posixpath.normpath(dest)


def conflicts(
    script: JobScript, nodes: Sequence[str], values: Values, is_directory: Callable[[str], bool] = is_directory_form
) -> list[Problem]:
    """What is wrong with `script` in a job on `nodes`: targets outside the job, paths that are written twice.

    `is_directory` tells of a source on the user's side.
    """
    found = [*_in_conflicts(script, nodes, values, is_directory), *_out_conflicts(script, nodes, values)]
    return sorted(found, key=lambda problem: problem.line)


def _in_conflicts(
    script: JobScript, nodes: Sequence[str], values: Values, is_directory: Callable[[str], bool]
) -> list[Problem]:
    problems = []
    taken: dict[tuple[str | None, str], int] = {}
    for item in script.inputs:
        try:
            members = item.to.values(nodes, values)
        except UsageError as error:
            problems.append(Problem.of(item.line, error))
            continue
        for at in members:
            src, dest = fill(item.src, at), fill(item.dest, at)
            # A directory itself, unlike a file, lands inside its destination however that is written.
            path = landing(src, posixpath.join(dest, "") if is_directory(src) else dest)
            # An absolute destination may well lie in the scratch directory that a relative one starts from.
            path = posixpath.normpath(posixpath.join(fill(script.scratch or "", at), path))
            line = taken.setdefault((at.node, path), item.line)
            if line != item.line:
                message = f"line {line} already puts {path} on {at.node}"
                problems.append(Problem(item.line, message, "give one of the two another destination"))
                break
    return problems


def _out_conflicts(script: JobScript, nodes: Sequence[str], values: Values) -> list[Problem]:
    problems = []
    taken: dict[str, list[StageOut]] = {}
    for item in script.outputs:
        try:
            members = item.from_.values(nodes, values)
        except UsageError as error:
            problems.append(Problem.of(item.line, error))
            continue
        writers = Counter(landing(fill(item.src, at), fill(item.dest, at)) for at in members)
        for path, count in writers.items():
            if count > 1:
                remedy = f"put %N in the destination name, as in {shlex.quote(_per_node(item))}"
                problems.append(Problem(item.line, f"{count} nodes would write the same {path}", remedy))
                break
        for path in writers:
            earlier = [other for other in taken.setdefault(path, []) if _both_happen(other, item)]
            if earlier:
                message = f"line {earlier[0].line} already writes {path}"
                problems.append(Problem(item.line, message, "give one of the two another destination"))
                break
        for path in writers:
            taken.setdefault(path, []).append(item)
    return problems


def _both_happen(one: StageOut, other: StageOut) -> bool:
    return "always" in (one.on, other.on) or one.on == other.on


def _per_node(item: StageOut) -> str:
    """The destination of `item` with %N put into its last name."""
    path = landing(item.src, item.dest)
    if is_directory_form(path):
        return posixpath.join(path, "%N/")
    stem, suffix = posixpath.splitext(path)
    return f"{stem}-%N{suffix}" + "/" * is_directory_form(item.src)
