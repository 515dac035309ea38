"""The job's scratch directory on each of its nodes: made before the job, and removed after it where nothing is owed."""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
from collections.abc import Callable, Collection, Sequence
from typing import Any

from cluster.nodes import fold
from cluster.output import Output
from scheduler_hooks.job import JobNode
from scheduler_hooks.job_processes import Ends, JobProcesses
from staging.mover.errors import PartialError, StageError

CLEAN_SECONDS = 60
_MAKE = 'mkdir -p -- "$1" && mkdir -m 700 -- "$2"'


class Scratch:
    """Owner of the knowledge on which nodes a scratch directory of the job is."""

    def __init__(self, processes: JobProcesses) -> None:
        self._processes = processes
        self._ours: dict[str, JobNode] = {}

    def nodes(self) -> tuple[str, ...]:
        """The nodes on which there is one that is ours."""
        return tuple(self._ours)

    async def make(self) -> None:
        """A new directory on every node: one that is there already is somebody's, and would be removed with the job.

        PartialError names the nodes that have none now. A cancellation waits for what was begun.
        """
        making = asyncio.create_task(self._make())
        try:
            await asyncio.shield(making)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):  # the cancellation says it all
                await making
            raise

    async def _make(self) -> None:
        nodes = self._processes.job.nodes
        ends, said = await self._run(nodes, lambda path: ("sh", "-c", _MAKE, "sh", posixpath.dirname(path), path))
        self._ours = {node.name: node for node in nodes if ends.codes.get(node.name) == 0}
        bad = [node.name for node in nodes if node.name not in self._ours]
        if ends.errors:
            raise next(iter(ends.errors.values()))
        if bad:
            remedy = "remove it there, or name another with #STAGE scratch" if "File exists" in said else ""
            raise PartialError(f"cannot make the scratch directory on {fold(bad)}: {said or 'no reason given'}", remedy)

    async def remove(self, but: Collection[str]) -> str:
        """Remove it everywhere but on the nodes `but`; why it is still there on others, or ""."""
        nodes = [node for node in self._ours.values() if node.name not in but]
        if not nodes:
            return ""
        try:
            async with asyncio.timeout(CLEAN_SECONDS):
                ends, said = await self._run(nodes, lambda path: ("rm", "-rf", "--", path), self._gone)
        except TimeoutError:
            return "no answer in time"
        except StageError as error:
            return str(error)
        return said or "; ".join(dict.fromkeys(map(str, ends.errors.values())))

    def _gone(self, event: dict[str, Any]) -> None:
        if event["code"] == 0:
            self._ours.pop(event["node"], None)

    async def _run(
        self,
        nodes: Sequence[JobNode],
        command: Callable[[str], tuple[str, ...]],
        on_exit: Callable[[dict[str, Any]], None] | None = None,
    ) -> tuple[Ends, str]:
        """Run `command(scratch)` on each of the nodes; how it ended, and the first line that one of them complained."""
        said = bytearray()

        def write(stream: str, data: bytes) -> None:
            if stream == "stderr":
                said.extend(data)

        paths = [(node, self._processes.job.environment(node)["STAGE_DIR"]) for node in nodes]
        started = [self._processes.process(node, command(path), "/") for node, path in paths]
        ends = await self._processes.run(started, Output("label", write), on_exit)
        lines = said.decode(errors="replace").strip().splitlines()
        return ends, lines[0] if lines else ""
