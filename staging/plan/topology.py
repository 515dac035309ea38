"""Which switch each node hangs on: Slurm's topology.conf of the tree kind. Pure: the text in, a value out.

    SwitchName=s1 Nodes=n[1-8]
    SwitchName=s2 Nodes=n[9-16]  LinkSpeed=100
    SwitchName=top Switches=s[1-2]

A line has nodes or switches. Names are node sets, words before `=` are in any case, `#` begins a comment, a backslash
at its end continues a line. LinkSpeed is ignored, as Slurm does. There may be several switches on top.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cluster.nodes import MAX_NODES
from cluster.nodes import parse as parse_nodes
from staging.mover.errors import StageError, UsageError
from staging.units import printable

MAX_TEXT = 4 << 20  # characters
UNNAMED = ""  # the switch of the nodes that the file leaves out
KEYS = ("switchname", "nodes", "switches", "linkspeed")
EXAMPLE = "write it like SwitchName=s1 Nodes=n[1-8]"

_WORD = re.compile(r"(\w+)\s*=\s*(\S+)", re.ASCII)


@dataclass(frozen=True)
class Topology:
    """above: the switch above each switch, "" for one on top. leaf: the switch of each node."""

    above: Mapping[str, str]
    leaf: Mapping[str, str]

    def path(self, node: str) -> tuple[str, ...]:
        """The switches above a node, the outermost first; one unnamed switch where the file does not have the node."""
        found = [self.leaf.get(node, UNNAMED)]
        while above := self.above.get(found[-1]):
            found.append(above)
        return tuple(reversed(found))

    def unlisted(self, names: Iterable[str]) -> list[str]:
        """Those of the names that are not in the file."""
        return [name for name in names if name not in self.leaf]


def parse(text: str, where: str = "topology.conf") -> Topology:
    """Read a topology; UsageError names the line, or the switch, and what to do."""
    if len(text) > MAX_TEXT:
        raise UsageError(f"{where} has {len(text)} characters, more than {MAX_TEXT}", "fold its node sets")
    above: dict[str, str] = {}
    leaf: dict[str, str] = {}
    defined: dict[str, int] = {}
    for number, line in _lines(text):
        place = f"{where}, line {number}"
        words = _words(line, place)
        name = words["switchname"]
        if not re.fullmatch(r"[\w.-]+", name):
            raise UsageError(f"{place}: {printable(name)!r} cannot be the name of one switch", EXAMPLE)
        if name in defined:
            raise UsageError(f"{place}: switch {name} is in line {defined[name]} already", "keep one of the lines")
        defined[name] = number
        owned, kind = (leaf, "nodes") if "nodes" in words else (above, "switches")
        for member in _members(words[kind], place):
            if member in owned:
                thing = "node" if kind == "nodes" else "switch"
                raise UsageError(f"{place}: {thing} {member} is under {owned[member]} already", "name it once")
            owned[member] = name
        if len(leaf) + len(above) > MAX_NODES:
            raise UsageError(
                f"{place}: more than {MAX_NODES} nodes and switches", "leave out what is not of this cluster"
            )
    _check(above, defined, where)
    return Topology(above, leaf)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Logical lines that say something, with the number of their first."""
    held, begun = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        begun = begun or number
        held += line.split("#", 1)[0].rstrip()
        if held.endswith("\\") and "#" not in line:
            held = held[:-1] + " "
            continue
        if held.strip():
            yield begun, held.strip()
        held, begun = "", 0
    if held.strip():
        yield begun, held.strip()


def _words(line: str, place: str) -> dict[str, str]:
    words = {key.lower(): value for key, value in _WORD.findall(line)}
    rest = _WORD.sub("", line).strip()
    unknown = [key for key in words if key not in KEYS]
    if rest or unknown or "switchname" not in words:
        raise UsageError(f"{place} does not describe a switch: {printable((unknown or [rest or line])[0])!r}", EXAMPLE)
    if ("nodes" in words) == ("switches" in words):
        raise UsageError(
            f"{place}: switch {printable(words['switchname'])} needs nodes or switches, one of them", EXAMPLE
        )
    return words


def _members(spec: str, place: str) -> tuple[str, ...]:
    try:
        return parse_nodes(spec)
    except StageError as error:
        raise UsageError(f"{place}: {error.message}", error.remedy) from None


def _check(above: Mapping[str, str], defined: Mapping[str, int], where: str) -> None:
    for name, top in above.items():
        if name not in defined:
            line = f"{where}, line {defined[top]}"
            raise UsageError(f"{line}: switch {name} is not described", f"add a line SwitchName={name} Nodes=...")
    sound: set[str] = set()
    for name in defined:
        walk: dict[str, None] = {}
        at = name
        while at and at not in sound:
            if at in walk:
                loop = [*walk][[*walk].index(at) :]
                raise UsageError(f"{where}: a loop of switches: {' under '.join([*loop, at])}", "leave one of them out")
            walk[at] = None
            at = above.get(at, "")
        sound.update(walk)
