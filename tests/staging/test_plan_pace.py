"""staging.plan.pace on a virtual clock: simulated chains and trees whose nodes have rates of their own."""

from __future__ import annotations

import pytest

from staging.plan.course import Course
from staging.plan.pace import Pace
from support.plans import planner

BLOCK = 256 << 10
TOTAL = 512 << 20
LINE = 25e6  # bytes/s
STEP = 0.05
REPORT = 0.25


class World:
    """A tree in which a node gets what its links allow, and no more than its parents have."""

    def __init__(
        self,
        count: int,
        shape: str,
        slow: dict[str, float],
        uplink: dict[str, float] | None = None,
        known: float = LINE,
    ) -> None:
        names = [f"n{number}" for number in range(1, count + 1)]
        self.course = Course(names, planner(shape))
        self.pace = Pace(TOTAL, BLOCK, REPORT, 0.0, known)
        self.here = dict.fromkeys(names, 0.0)
        self.rates = {name: slow.get(name, LINE) for name in names}
        self.uplink = uplink or {}
        self.now = 0.0
        self.demoted: list[tuple[str, float]] = []

    def _step(self) -> None:
        before = dict(self.here)
        for name in self.here:
            stripes = len(self.course.feeds[name])
            gain = 0.0
            for feed in self.course.feeds[name]:
                parent = feed.peers[0]
                up = self.uplink.get(parent, self.rates.get(parent, LINE))
                ahead = before.get(parent, TOTAL) - BLOCK - before[name]
                gain += min(up, self.rates[name]) / stripes if ahead > 0 else 0.0
            self.here[name] = min(TOTAL, before[name] + gain * STEP)
        self.now += STEP

    def run(self, seconds: float) -> None:
        next_report = self.now
        while self.now < seconds and any(here < TOTAL for here in self.here.values()):
            self._step()
            if self.now >= next_report:
                next_report += REPORT
                for name, here in self.here.items():
                    self.pace.heard(name, int(here), self.now)
                incomplete = {n: self.course.parents(n) for n in self.course.feeds if self.here[n] < TOTAL}
                cause = self.pace.cause(incomplete, self.now)
                if cause is not None:
                    self.demoted.append((cause, self.now))
                    self.course.demote(cause)


@pytest.mark.parametrize("shape", ["chain", "2", "double", "trees:4"])
@pytest.mark.parametrize("count", [1, 2, 8, 64])
def test_nobody_is_blamed_while_all_is_well(shape: str, count: int) -> None:
    world = World(count, shape, {})
    world.run(40)
    assert world.demoted == []


@pytest.mark.parametrize("node", ["n2", "n4", "n7"])
def test_a_slow_node_in_a_chain_is_found_within_two_seconds(node: str) -> None:
    world = World(8, "chain", {node: LINE / 10})
    world.run(10)
    assert [name for name, _ in world.demoted] == [node]
    assert world.demoted[0][1] < 2.0
    others = [here for name, here in world.here.items() if name != node]
    assert min(others) > 10 * LINE * 0.8


@pytest.mark.parametrize("shape", ["2", "double"])
def test_a_slow_node_in_a_tree_is_found(shape: str) -> None:
    world = World(14, shape, {"n1": LINE / 10})
    world.run(10)
    assert [name for name, _ in world.demoted] == ["n1"]


def test_two_slow_nodes_are_found_one_after_the_other() -> None:
    world = World(8, "chain", {"n3": LINE / 10, "n6": LINE / 5})
    world.run(10)
    assert [name for name, _ in world.demoted] == ["n3", "n6"]


def test_a_node_that_can_receive_but_not_send_is_found_by_its_second_child() -> None:
    world = World(8, "chain", {}, uplink={"n3": LINE / 10})
    world.run(10)
    assert [name for name, _ in world.demoted] == ["n4", "n3"]


def test_a_slow_source_is_nobodys_fault_but_that_takes_one_trial() -> None:
    world = World(8, "chain", {}, uplink={"source": LINE / 10})
    world.run(20)
    assert [name for name, _ in world.demoted] == ["n1"]
    assert world.pace.best < LINE / 4


@pytest.mark.parametrize("known", [LINE, 0.0])
def test_a_slow_node_that_is_the_first_is_found_though_nobody_is_faster(known: float) -> None:
    world = World(8, "chain", {"n1": LINE / 10}, known=known)
    world.run(10)
    assert [name for name, _ in world.demoted] == ["n1"]
    assert world.demoted[0][1] < 2.0
    assert min(here for name, here in world.here.items() if name != "n1") > 10 * LINE * 0.75
    assert world.pace.best > LINE * 0.9


def test_what_will_soon_be_over_is_not_worth_a_trial() -> None:
    world = World(8, "chain", {}, known=0.0)
    world.pace = Pace(int(LINE * 8), BLOCK, REPORT, 0.0)
    world.run(7)
    assert world.demoted == []


def test_a_node_that_has_stopped_is_found() -> None:
    world = World(8, "chain", {})
    world.run(4)
    world.rates["n3"] = 0.0
    world.run(8)
    assert [name for name, _ in world.demoted] == ["n3"]
    assert world.demoted[0][1] < 6.0
