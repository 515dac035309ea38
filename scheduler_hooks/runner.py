"""`stage run`, the embedded scheduler: stage in, run the script on the first node, stage out, clean up."""

from __future__ import annotations

import asyncio
import os
import posixpath
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from cluster import run as processes
from cluster.door import ENV_DOOR
from cluster.launch_request import LaunchRequest
from cluster.layout import ENV_CLUSTER
from cluster.output import Output
from scheduler_hooks.job import Job, JobNode
from scheduler_hooks.staging_plan import Inward, OutPart, Outward, due, inward, outward
from staging.copy import Place, Pull, Push, pull, push
from staging.mover.errors import PartialError, StageError, from_wire
from staging.show import Show

CLEAN_SECONDS = 60
SCRIPT = ".stage-script"  # its name in the scratch directory


class Runner:
    def __init__(self, place: Place, job: Job, shown: Show) -> None:
        self._place = place
        self._job = job
        self._shown = shown
        self._scratches: list[JobNode] = []  # where the scratch directory is ours to remove

    async def run(self) -> int:
        """Carry the job out; its exit code, or the staging's when the job was fine or could not start."""
        job = self._job
        self._phase("start", job=job.id, nodes=list(job.names()))
        try:
            await self._make_scratch()
            self._phase("stage-in")
            for copy in inward(job):
                await self._in(copy)
            if self._shown.report.exit_code():
                return self._shown.report.exit_code()
            self._phase("run")
            self._shown.say(f"job {job.id}: running {job.name} on {job.nodes[0].name}")
            code = await self._script()
            self._phase("stage-out", exit=code)
            self._shown.say(f"job {job.id}: ended with exit code {code}")
            await asyncio.gather(*(self._out(copy) for copy in outward(job) if due(copy.on, code)))
            return code or self._shown.report.exit_code()
        finally:
            self._phase("clean")
            await asyncio.shield(self._clean())
            self._phase("end")

    def _phase(self, phase: str, **fields: Any) -> None:
        self._shown.tell({"type": "phase", "phase": phase, **fields})

    # copies -----------------------------------------------------------------------------------------------

    async def _in(self, copy: Inward) -> None:
        order = Push(
            label=copy.label,
            what=os.path.relpath(copy.source, self._job.base) + ("/" if copy.contents else ""),
            sources=(copy.source,),
            contents=copy.contents,
            dest=copy.dest,
            nodes=tuple(node.name for node in copy.nodes),
            into=copy.into,
            parents=True,
            shape=copy.shape(),
            direction="in",
        )
        await push(self._place, order, self._shown.tell)

    async def _out(self, copy: Outward) -> None:
        started = time.monotonic()
        self._shown.tell(
            {
                "type": "transfer-start",
                "transfer": copy.label,
                "what": copy.what,
                "direction": "out",
                "nodes": [part.node.name for part in copy.parts],
                "addresses": {part.node.name: part.node.address for part in copy.parts},
                "files": 0,
                "bytes": 0,
                "method": copy.method,
                "detail": "",
            }
        )
        results = await asyncio.gather(*(self._out_part(copy, part) for part in copy.parts))
        done = [event for event in results if event is not None]
        ok = [event["node"] for event in done]
        self._shown.tell(
            {
                "type": "transfer-end",
                "transfer": copy.label,
                "bytes": sum(event["bytes"] for event in done),
                "files": sum(event["files"] for event in done),
                "seconds": time.monotonic() - started,
                "digest": done[0]["digest"] if len(copy.parts) == len(done) == 1 else "",
                "ok": ok,
                "failed": [part.node.name for part in copy.parts if part.node.name not in ok],
            }
        )

    async def _out_part(self, copy: Outward, part: OutPart) -> dict[str, Any] | None:
        order = Pull(
            label=copy.label,
            node=part.node.name,
            sources=(part.source,),
            contents=part.contents,
            dest=part.dest,
            into=part.into,
            ticket=copy.method == "ticket",
            job=f"{self._job.id}/{copy.line}",
        )
        try:
            event = await pull(self._place, order, self._shown.tell)
        except StageError as error:
            failed = {"type": "node-failed", "transfer": copy.label, "node": part.node.name}
            self._shown.tell({**failed, "error": error.to_wire(), "partial": error.partial})
            return None
        self._shown.tell(event)
        return event

    # processes --------------------------------------------------------------------------------------------

    async def _script(self) -> int:
        """Run the script once, on the job's first node, from the directory in which the job was submitted."""
        job, first = self._job, self._job.nodes[0]
        scratch = job.environment(first)["STAGE_DIR"]
        await self._put_script(first)
        # as the kernel starts a script, but without asking for its mode to allow it
        argv = (*job.script.interpreter, os.path.join(scratch, SCRIPT))
        request = LaunchRequest(argv, self._environment(first), job.base, scratch, processes.umask())

        def write(stream: str, data: bytes) -> None:
            target = sys.stdout if stream == "stdout" and not self._shown.as_json else sys.stderr
            target.buffer.write(data)
            target.buffer.flush()

        codes = await self._run([processes.Process(first.name, 0, request)], Output("raw", write))
        return codes[first.name]

    async def _put_script(self, node: JobNode) -> None:
        """The script is staged like an input, but not reported as one."""
        failed: list[StageError] = []

        def tell(event: dict[str, Any]) -> None:
            if event["type"] == "node-failed":
                failed.append(from_wire(event["error"]))

        dest = posixpath.join(self._job.scratch(node), SCRIPT)
        # what was checked is what runs, whatever has become of the file since
        with tempfile.NamedTemporaryFile(prefix="stage-script-") as file:
            file.write(self._job.script.text.encode("utf-8", "surrogateescape"))
            file.flush()
            await push(self._place, Push("script", SCRIPT, (file.name,), dest, (node.name,)), tell)
        if failed:
            raise failed[0]

    def _environment(self, node: JobNode) -> dict[str, str]:
        env = {**os.environ, **self._job.environment(node)}
        env[ENV_CLUSTER] = str(self._place.layout.base)
        env[ENV_DOOR] = str(self._place.layout.door(node.name))
        if shutil.which("stage", path=env.get("PATH", "")) is None:
            # `stage each` must be found in the script also where the virtual environment is not active
            env["PATH"] = os.pathsep.join(filter(None, [env.get("PATH", ""), os.path.dirname(sys.executable)]))
        return env

    async def _make_scratch(self) -> None:
        """A new directory on every node: one that is there already is somebody's, and would be removed with the job."""
        made = 'mkdir -p -- "$1" && mkdir -m 700 -- "$2"'
        await self._on_nodes(
            "make",
            self._job.nodes,
            lambda path: ("sh", "-c", made, "sh", posixpath.dirname(path), path),
            self._scratches,
        )

    async def _on_nodes(
        self,
        what: str,
        nodes: Sequence[JobNode],
        command: Callable[[str], tuple[str, ...]],
        done: list[JobNode] | None = None,
    ) -> None:
        """Run a command on the scratch directory of each node; PartialError when one fails.

        Those on which it did not fail are added to `done`.
        """
        started = []
        for node in nodes:
            argv = command(self._job.environment(node)["STAGE_DIR"])
            started.append(processes.Process(node.name, node.rank, LaunchRequest(argv, self._environment(node), "/")))
        await self._quiet(started, f"{what} the scratch directory", done)

    async def _quiet(self, started: list[processes.Process], what: str, done: list[JobNode] | None) -> None:
        said: dict[str, bytes] = {}

        def write(stream: str, data: bytes) -> None:
            said[stream] = said.get(stream, b"") + data

        codes = await self._run(started, Output("label", write), quiet=True)
        if done is not None:
            done += [node for node in self._job.nodes if codes.get(node.name) == 0]
        bad = sorted(node for node, code in codes.items() if code)
        if bad:
            reason = said.get("stderr", b"").decode(errors="replace").strip().splitlines()
            raise PartialError(f"cannot {what} on {', '.join(bad)}: {reason[0] if reason else 'no reason given'}")

    async def _run(self, started: list[processes.Process], output: Output, quiet: bool = False) -> dict[str, int]:
        codes: dict[str, int] = {}
        failed: list[StageError] = []

        def tell(event: dict[str, Any]) -> None:
            if event["type"] == "exit":
                codes[event["node"]] = event["code"]
                if not quiet:
                    self._shown.tell(event)
            else:
                failed.append(from_wire(event["error"]))

        await processes.run(self._place.layout, self._place.host, started, output, tell)
        if failed:
            raise failed[0]
        return codes

    async def _clean(self) -> None:
        """Remove the scratch directories; what cannot be removed is said, and does not change how the job ended."""
        try:
            async with asyncio.timeout(CLEAN_SECONDS):
                await self._on_nodes("remove", self._scratches, lambda path: ("rm", "-rf", "--", path))
        except (StageError, TimeoutError) as error:
            text = str(error) if isinstance(error, StageError) else "no answer in time"
            self._shown.display.print_line(f"stage: scratch was not removed everywhere: {text}")
