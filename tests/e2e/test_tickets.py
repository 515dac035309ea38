"""The ticket queue of a running cluster: how many copies at once, who is next, and what a vanished one costs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.layout import Layout
from cluster.line import Line
from staging.mover.errors import UsageError
from staging.tickets.service import DEFAULT_LIMITS
from support.cli import Cli

SMALL = DEFAULT_LIMITS.small


class Copier:
    """One connection that holds one ticket."""

    def __init__(self, line: Line) -> None:
        self._line = line

    @classmethod
    async def ask(cls, layout: Layout, name: str, size: int = 1, recursive: bool = False) -> Copier:
        request = {"direction": "put", "paths": [name], "bytes": size, "recursive": recursive}
        return cls(await Line.open(layout, {"op": "ticket", "request": request}))

    async def told(self) -> int:
        """Its place in the queue as it is told next; 0 when its turn has come."""
        event = await anext(self._line)
        assert event["state"] == ("wait" if event["position"] else "ok")
        return int(event["position"])

    async def say(self, **line: Any) -> None:
        self._line.say(line)

    async def done(self) -> None:
        self._line.say({"op": "done", "outcome": "ok", "bytes": 1})
        assert [event async for event in self._line] == []

    async def leave(self) -> None:
        await self._line.close()


class Copiers:
    """All copiers of a test; they leave at its end."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._all: list[Copier] = []

    async def ask(self, name: str, **about: Any) -> Copier:
        self._all.append(await Copier.ask(self._layout, name, **about))
        return self._all[-1]

    async def several(self, count: int) -> tuple[list[Copier], list[int]]:
        """So many copiers, one after the other, and what each was told first."""
        copiers = [await self.ask(f"f{number}") for number in range(count)]
        return copiers, [await copier.told() for copier in copiers]

    async def leave(self) -> None:
        for copier in self._all:
            await copier.leave()


def run(layout: Layout, test: Callable[[Copiers], Awaitable[None]]) -> None:
    async def main() -> None:
        copiers = Copiers(layout)
        try:
            async with asyncio.timeout(20):
                await test(copiers)
        finally:
            await copiers.leave()

    asyncio.run(main())


def test_no_more_than_the_limit_copy_at_once_and_the_next_is_told_at_once(cluster4: Layout) -> None:
    async def test(copiers: Copiers) -> None:
        six, places = await copiers.several(SMALL + 2)
        assert places == [0] * SMALL + [1, 2]
        await six[1].done()
        assert [await six[4].told(), await six[5].told()] == [0, 1]
        await six[4].done()
        assert await six[5].told() == 0

    run(cluster4, test)


def test_a_copier_that_vanishes_gives_its_place_to_the_next(cluster4: Layout) -> None:
    async def test(copiers: Copiers) -> None:
        six, _ = await copiers.several(SMALL + 2)
        await six[SMALL].leave()  # while it waits
        assert await six[SMALL + 1].told() == 1
        await six[0].leave()  # while it copies
        assert await six[SMALL + 1].told() == 0

    run(cluster4, test)


def test_large_copies_have_places_of_their_own(cluster4: Layout) -> None:
    async def test(copiers: Copiers) -> None:
        await copiers.several(SMALL)
        large = [await copiers.ask(f"large{n}", size=None, recursive=True) for n in range(DEFAULT_LIMITS.large + 1)]
        assert [await copier.told() for copier in large] == [0] * DEFAULT_LIMITS.large + [1]

    run(cluster4, test)


def test_the_same_copy_twice_at_a_time_is_refused(cluster4: Layout) -> None:
    async def test(copiers: Copiers) -> None:
        first = await copiers.ask("same")
        assert await first.told() == 0
        second = await copiers.ask("same")
        with pytest.raises(UsageError, match="has a ticket already; wait for the other command"):
            await second.told()
        await first.done()
        assert await (await copiers.ask("same")).told() == 0

    run(cluster4, test)


@pytest.mark.parametrize("line", [{"op": "dance"}, {}, {"op": "done"}, {"op": "done", "outcome": "odd", "bytes": 1}])
def test_a_line_that_makes_no_sense_ends_that_ticket_alone(cluster4: Layout, line: dict[str, Any]) -> None:
    async def test(copiers: Copiers) -> None:
        odd, other = await copiers.ask("odd"), await copiers.ask("other")
        assert [await odd.told(), await other.told()] == [0, 0]
        await odd.say(**line)
        with pytest.raises(UsageError):
            await odd.told()
        await other.done()
        assert await (await copiers.ask("odd")).told() == 0

    run(cluster4, test)


def test_every_output_of_a_job_waits_for_its_ticket(
    cli: Callable[[Layout], Cli], cluster4: Layout, tmp_path: Path
) -> None:
    outs = "".join(f"#STAGE out f{n} out-%N-{n}\n" for n in range(3))
    body = "stage each -- sh -c 'for n in 0 1 2; do echo %N$n > $STAGE_DIR/f$n; done'\n"
    (tmp_path / "job.sh").write_text(f"#!/bin/sh\n{outs}{body}")
    done = cli(cluster4).stage("run", "--json", "job.sh")
    assert done.code == 0, done.err
    granted: set[tuple[str, str]] = set()
    for event in done.of_type("ticket", "progress", "node-done"):
        copy = event["transfer"], event["node"]
        if event["type"] == "ticket" and event["state"] == "ok":
            assert event["position"] == 0
            granted.add(copy)
        elif event["type"] == "ticket":
            assert event["position"] > 0
            assert copy not in granted
        else:
            assert copy in granted
    assert len(granted) == 12
    assert sorted(path.read_text() for path in tmp_path.glob("out-*")) == sorted(
        f"n{node}{n}\n" for node in (1, 2, 3, 4) for n in (0, 1, 2)
    )
