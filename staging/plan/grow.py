"""One stripe's tree, grown from the source so that every switch is entered once. Pure.

A node that is in the tree may feed as many nodes as it has slots. Nodes take their turn in the order in which they
joined, so that the tree is as shallow as its slots allow; without switches this gives a heap in the order of the list.

With switches a slot goes to a node behind a switch not entered yet, the outermost first, as long as what is left is
enough: a switch with nodes still to come keeps one open slot, and slots for all of them, so that it can be filled
from within. Switches first, since they then fill at the same time. Where the slots below a switch do not suffice,
a node there gets one more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

Switches = tuple[str, ...]  # above a node, the outermost first


class _Unit:
    """What is below one switch, or all there is."""

    def __init__(self) -> None:
        self.waiting: deque[_Unit] = deque()  # switches below that are not entered yet
        self.entered: list[_Unit] = []
        self.nodes: deque[str] = deque()  # not in the tree yet, those with slots first
        self.joined: list[str] = []  # sinks below that are in the tree
        self.missing = 0  # sinks below that are not
        self.coming = 0  # the slots those will bring
        self.open = 0  # slots of those in the tree

    def spare(self) -> int:
        """How many of its open slots may feed nodes outside."""
        if self.waiting:  # the next switch below is entered from a slot that a switch below can spare
            usable = sum(below.spare() for below in self.entered) - 1
        elif self.nodes:
            usable = self.open - 1
        else:
            return self.open
        return max(0, min(usable, self.open + self.coming - self.missing))


def grow(
    source: str,
    home: Switches,
    sinks: Mapping[str, Switches],
    slots: Mapping[str, int],
    extra: Callable[[Sequence[str]], str],
) -> dict[str, str]:
    """The parent of every sink, in the order in which they join.

    home: the switches above the source, () for none. sinks: those above each sink; nodes and switches join in the
    order given, nodes with slots first. slots: of the source, which has at least one, and of every sink.
    extra: which one of some sinks, in the order in which they joined, shall get one slot more.
    """
    units: dict[Switches, _Unit] = {(): _Unit()}
    lines = {name: _line(units, path) for name, path in sinks.items()}
    lines[source] = _line(units, home)
    for outer, inner in zip(lines[source], lines[source][1:], strict=False):
        outer.waiting.remove(inner)
        outer.entered.append(inner)
    for name in sorted(sinks, key=lambda name: not slots[name]):
        lines[name][-1].nodes.append(name)
        for unit in lines[name]:
            unit.missing += 1
            unit.coming += slots[name]
    for unit in units.values():  # first those that bring more slots than they need
        unit.waiting = deque(sorted(unit.waiting, key=lambda below: below.missing - below.coming))
    for unit in lines[source]:
        unit.open += slots[source]
    root = units[()]
    parents: dict[str, str] = {}
    turns = deque([source] * slots[source])
    while root.missing:
        if turns:
            parent = turns.popleft()
        else:
            needy = _needy(root)
            parent = extra(needy.joined)
            for unit in lines[parent]:
                unit.open += 1
        into = _next(lines[parent])
        if into is None:
            continue  # nothing is missing where it may send to
        child = _enter(into)
        parents[child] = parent
        for unit in lines[parent]:
            unit.open -= 1
        for unit in lines[child]:
            unit.joined.append(child)
            unit.missing -= 1
            unit.coming -= slots[child]
            unit.open += slots[child]
        turns.extend([child] * slots[child])
    return parents


def _line(units: dict[Switches, _Unit], path: Switches) -> tuple[_Unit, ...]:
    """The units a node is in, the outermost first; made where they are new."""
    line = [units[()]]
    for depth in range(1, len(path) + 1):
        unit = units.get(path[:depth])
        if unit is None:
            unit = units[path[:depth]] = _Unit()
            line[-1].waiting.append(unit)
        line.append(unit)
    return tuple(line)


def _next(line: Sequence[_Unit]) -> _Unit | None:
    """The outermost unit to which a slot of a node in `line` may add a member."""
    for at, unit in enumerate(line):
        if (unit.waiting or unit.nodes) and all(inner.spare() for inner in reversed(line[at + 1 :])):
            return unit
    return None


def _enter(unit: _Unit) -> str:
    """The node that joins next in a unit; switches are entered on the way to it."""
    while unit.waiting:
        inner = unit.waiting.popleft()
        unit.entered.append(inner)
        unit = inner
    return unit.nodes.popleft()


def _needy(unit: _Unit) -> _Unit:
    """The innermost unit that can only be filled from within and has no open slot for it."""
    while True:
        inner = next((below for below in unit.entered if below.missing), None)
        if inner is None:
            return unit
        unit = inner
