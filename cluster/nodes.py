"""Node sets: the names of nodes, written as ClusterShell and Slurm write them.

The set algebra, the folding and the groups (`@rack1`, `@source:group`) are ClusterShell's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException
from ClusterShell.NodeUtils import GroupResolverError, GroupSourceError

from staging.mover.errors import UsageError

MAX_NODES = 100_000
EXAMPLE = "write it like node[01-08],gpu3"

_BRACKET = re.compile(r"\[([^\[\]]*)\]")
_RANGE = re.compile(r"\s*(0\d+)-([1-9]\d*)(?:/([1-9]\d*))?\s*", re.ASCII)
_OPERATOR = re.compile(r"[,!&^](?![^\[]*\])")  # outside brackets
# Names become file names, command arguments and Dask worker names, so they may start no option and hold no path.
_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]*", re.ASCII | re.IGNORECASE)
# AssertionError: ClusterShell's word for a range of a hundred million and more
_ERRORS = (NodeSetException, GroupResolverError, GroupSourceError, AssertionError)


def parse(spec: str) -> tuple[str, ...]:
    """The names in a node set, each once, sorted as ClusterShell sorts them (by prefix, then by number).

    Raises UsageError for a syntax error, an unknown group source, a word that cannot name a node, and an
    empty set.
    """
    spec = spec.strip()
    if not spec:
        raise UsageError("no node is named", EXAMPLE)
    try:
        found = NodeSet(normalise(spec))
        if len(found) > MAX_NODES:
            raise UsageError(f"{spec!r} has {len(found)} nodes, more than {MAX_NODES}", "name fewer")
        names = tuple(found)
    except _ERRORS as error:
        raise _syntax_error(spec, error) from error
    if not names:
        raise UsageError(f"no node is in {spec!r}", f"{EXAMPLE}, or check the group's definition")
    for name in names:
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot be the name of a node", EXAMPLE)
    return names


def fold(names: Iterable[str]) -> str:
    """The names as one node set, for display: about 20 us a name, too slow for a path run per message."""
    return str(NodeSet.fromlist(list(names), resolver=RESOLVER_NOGROUP))


def resolve_count(n: int) -> tuple[str, ...]:
    """The node names of a cluster of `n` nodes that has no names of its own: n1, n2, ..."""
    if n < 1:
        raise UsageError(f"a cluster of {n} nodes is not possible", "ask for one node or more")
    return tuple(f"n{number}" for number in range(1, n + 1))


def normalise(spec: str) -> str:
    """Split zero-padded ranges that cross a power of ten: `n[08-101]` becomes `n[08-99,100-101]`.

    Slurm prints such ranges (`_width_equiv` in its hostlist.c); ClusterShell refuses them.
    """
    return _BRACKET.sub(lambda found: "[" + ",".join(map(_split, found[1].split(","))) + "]", spec)


def _split(subrange: str) -> str:
    found = _RANGE.fullmatch(subrange)
    if not found or len(found[1]) >= len(found[2]):
        return subrange
    low, high, step = found[1], int(found[2]), int(found[3] or 1)
    edge = 10 ** len(low)  # the first number that needs no padding
    start = edge + (int(low) - edge) % step
    suffix = f"/{step}" if step > 1 else ""
    padded = f"{low}-{edge - 1}{suffix}"
    return f"{padded},{start}-{high}{suffix}" if start <= high else padded


def _syntax_error(spec: str, error: Exception) -> UsageError:
    """Name the first word that is wrong by itself; what is wrong only as a whole is named whole."""
    for word in _OPERATOR.split(spec):
        try:
            NodeSet(normalise(word))
        except _ERRORS as own:
            spec, error = word, own
            break
    if isinstance(error, GroupResolverError):
        return UsageError(f"{spec!r} names a group source that is not configured: {error}", EXAMPLE)
    reason = str(error).replace('"', "").replace(" : ", ": ")
    return UsageError(f"{spec!r} is not a node set: {reason}", EXAMPLE)
