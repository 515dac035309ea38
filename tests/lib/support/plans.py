"""Plans for the tests of what happens to a tree while it runs."""

from __future__ import annotations

from collections.abc import Sequence

from staging.plan.course import Plan
from staging.plan.tree import Shape, TreePlan, build


def planner(shape: str) -> Plan:
    """What makes plans of one shape, as `Shape.parse` takes it, from a host named source."""

    def plan(names: Sequence[str]) -> TreePlan:
        return build("source", names, Shape.parse(shape))

    return plan
