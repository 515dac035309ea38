"""The tree of a transfer while it runs: nodes join late, are slow, or die. Pure: names in, changed feeds out.

The nodes that keep up stand in the plan of `build`. Beneath it hang the others, the slow ones and those that came
late: each is fed by a node of the plan that feeds the fewest, and feeds nobody, so that it sets nobody's pace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from staging.plan.tree import MAX_PEERS, Feed, TreePlan

Feeds = Mapping[str, tuple[Feed, ...]]
Plan = Callable[[Sequence[str]], TreePlan]


class Course:
    """Owner of a running transfer's tree. Every change returns the feeds of the nodes whose parents it changed.

    plan: makes the tree over the nodes that keep up, in the order given. Its stripes stay as many as at first.
    """

    def __init__(self, nodes: Sequence[str], plan: Plan) -> None:
        self._plan = plan
        self._planned = list(nodes)
        self._hanging: list[str] = []
        self._chain = False
        self._stripes = 0
        self.feeds: Feeds = self._build()

    def parents(self, name: str) -> set[str]:
        """Who feeds `name`, the source included."""
        return {feed.peers[0] for feed in self.feeds[name]}

    def feeds_others(self, name: str) -> bool:
        return any(feed.peers[0] == name for feeds in self.feeds.values() for feed in feeds)

    def grow(self, name: str) -> Feeds:
        """A node takes its place in the plan, behind those that are there."""
        self._planned.append(name)
        return self._rebuild()

    def join(self, name: str) -> Feeds:
        """A node came late, or came back."""
        (self._hanging if self._planned else self._planned).append(name)
        return self._rebuild()

    def demote(self, name: str) -> Feeds:
        """A node is slow: from now on it feeds nobody."""
        if name in self._planned and len(self._planned) > 1:
            self._take_out(name)
            self._hanging.append(name)
        return self._rebuild()

    def remove(self, name: str) -> Feeds:
        """A node is gone."""
        if name in self._hanging:
            self._hanging.remove(name)
        elif name in self._planned:
            self._take_out(name)
            if not self._planned and self._hanging:
                self._planned.append(self._hanging.pop(0))
        return self._rebuild()

    def _take_out(self, name: str) -> None:
        at = self._planned.index(name)
        last = self._planned.pop()
        if last == name:
            return
        if self._chain:
            self._planned.append(last)
            del self._planned[at]  # only its child changes its parent
        else:
            self._planned[at] = last  # in a heap only the two places' neighbours do

    def _rebuild(self) -> Feeds:
        before, self.feeds = self.feeds, self._build()
        return {
            name: feeds
            for name, feeds in self.feeds.items()
            if [f.peers[0] for f in feeds] != [f.peers[0] for f in before.get(name, ())]
        }

    def _build(self) -> Feeds:
        if not self._planned:
            return {}
        plan = self._plan(self._planned)
        self._chain = plan.shape.kind == "chain"
        self._stripes = self._stripes or plan.stripes
        feeds = {name: self._striped(found) for name, found in plan.feeds.items()}
        load = Counter(feed.peers[0] for found in feeds.values() for feed in found)
        last_first = self._planned[::-1]
        for name in self._hanging:
            parent = min(last_first, key=lambda n: load[n])
            load[parent] += self._stripes
            feeds[name] = tuple(Feed(f.stripe, _line(parent, f.peers)) for f in feeds[parent])
        return feeds

    def _striped(self, feeds: tuple[Feed, ...]) -> tuple[Feed, ...]:
        """A plan for few nodes may have fewer stripes than the blocks were dealt to at first."""
        return tuple(Feed(stripe, feeds[stripe % len(feeds)].peers) for stripe in range(self._stripes))


def _line(parent: str, ancestors: tuple[str, ...]) -> tuple[str, ...]:
    line = (parent, *ancestors)
    return line if len(line) <= MAX_PEERS else (*line[: MAX_PEERS - 1], line[-1])
