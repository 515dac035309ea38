"""`stage run`, the embedded scheduler: stage in, run the script on the first node, stage out, clean up."""

from __future__ import annotations

import asyncio
import os
import posixpath
import shlex
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from cluster.output import Output
from cluster.printing import Guard, printable, write_through
from cluster.run import Grace, umask
from scheduler_hooks.job import Job, JobNode
from scheduler_hooks.job_processes import JobProcesses
from scheduler_hooks.scratch import Scratch
from scheduler_hooks.staging_plan import Inward, OutPart, Outward, due, inward, outward
from staging.copy import Place, Pull, Push, pull, push
from staging.mover.errors import PartialError, StageError, UsageError, describe, from_wire
from staging.show import Show

SCRIPT = ".stage-script"  # its name in the scratch directory


class Runner:
    """Carries one job out. Owner of what is still owed: the outputs of an ended script that are not home yet.

    With `keep` the scratch directories stay. A `private` cluster ends with the command.
    """

    def __init__(self, place: Place, job: Job, shown: Show, *, grace: Grace, keep: bool, private: bool) -> None:
        self._place = place
        self._job = job
        self._shown = shown
        self._keep = keep
        self._private = private
        self._processes = JobProcesses(place, job, grace)
        self._scratch = Scratch(self._processes)
        self._owed: set[tuple[str, str]] = set()  # node, and label of the output
        self._said = Guard("what the job says")
        self._code: int | None = None  # the script's

    async def run(self) -> int:
        """Carry the job out; its exit code, or the staging's when the job was fine or could not start."""
        job = self._job
        self._phase("start", job=job.id, nodes=list(job.names()))
        stopped = False
        try:
            await self._scratch.make()
            if self._private:
                self._hold()
            self._phase("stage-in")
            for copy in inward(job):
                await self._in(copy)
            if self._shown.report.exit_code():
                return self._shown.report.exit_code()
            self._phase("run")
            self._shown.say(f"job {job.id}: running {job.name} on {job.nodes[0].name}")
            await self._put_script(job.nodes[0])
            outputs = outward(job)
            self._owe(outputs)  # also where the script's end is not heard of
            self._code = code = await self._script()
            self._shown.say(f"job {job.id}: ended with exit code {code}")
            outputs = [copy for copy in outputs if due(copy.on, code)]
            self._owe(outputs)
            if self._private:
                self._hold()  # however this command ends, and the cluster with it
            self._phase("stage-out", exit=code)
            await asyncio.gather(*(self._out(copy) for copy in outputs))
            unsaid = self._unsaid()
            staged = self._shown.report.exit_code() or (unsaid.exit_code if unsaid else 0)
            # a destination that cannot be is no wrong command line any more: the job has run
            return code or (PartialError.exit_code if staged == UsageError.exit_code else staged)
        except asyncio.CancelledError:
            stopped = True
            if self._code is None:
                self._owed.clear()  # whoever stops a job does not wait for its outputs
            raise
        finally:
            self._phase("clean")
            await self._clean(stopped)

    def failure(self, code: int) -> StageError | None:
        """The error that says why `run` gave `code`; None for 0."""
        if not code:
            return None
        staging = self._shown.report.failure() or self._unsaid()
        job = f"job {self._job.id}"
        if self._code is None:
            text = f"{job} was not run: "
        elif self._code:
            text = f"{job} ended with exit code {self._code}" + (", and " if staging else "")
        else:
            text = f"{job} ended well, but "
        kind = StageError if staging is None or self._code else type(staging)
        if kind is UsageError and code == PartialError.exit_code:
            kind = PartialError
        error = kind(text + (staging.message if staging else ""))
        error.exit_code, error.remedy = code, ""
        return error

    def _unsaid(self) -> StageError | None:
        return self._said.error or self._shown.printed.error

    def _owe(self, outputs: Sequence[Outward]) -> None:
        self._owed = {(part.node.name, copy.label) for copy in outputs for part in copy.parts}

    def _kept(self) -> list[str]:
        """The nodes whose scratch directory is not to be removed."""
        owing = {node for node, _ in self._owed}
        return [node for node in self._scratch.nodes() if self._keep or node in owing]

    def _hold(self) -> None:
        """Have the cluster's directory outlive the cluster for as long as what is to be kept now is there."""
        kept = self._kept()
        paths = [self._path(node) for node in self._job.nodes if node.root and node.name in kept]
        if paths:
            self._place.layout.keep(paths)

    def _path(self, node: JobNode) -> str:
        return self._job.environment(node)["STAGE_DIR"]

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
        except (StageError, OSError) as caught:
            error = caught if isinstance(caught, StageError) else StageError(describe(caught)[0])
            failed = {"type": "node-failed", "transfer": copy.label, "node": part.node.name}
            self._shown.tell({**failed, "error": error.to_wire(), "partial": error.partial})
            return None
        self._owed.discard((part.node.name, copy.label))
        self._shown.tell(event)
        return event

    # processes --------------------------------------------------------------------------------------------

    async def _script(self) -> int:
        """Run the script once, on the job's first node, from the directory in which the job was submitted."""
        job, first = self._job, self._job.nodes[0]
        scratch = job.environment(first)["STAGE_DIR"]
        # as the kernel starts a script, but without asking for its mode to allow it
        argv = (*job.script.interpreter, os.path.join(scratch, SCRIPT))
        process = self._processes.process(first, argv, job.base, scratch, umask())

        def write(stream: str, data: bytes) -> None:
            said, target = self._said, "stderr" if self._shown.as_json else stream
            if said.error is None and not said(write_through, target, data):
                self._shown.line(f"stage: {said.error}; the job goes on, the rest of what it says is lost")

        ends = await self._processes.run([process], Output("raw", write), self._shown.tell)
        for error in ends.errors.values():
            raise error
        return ends.codes[first.name]

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

    # the end ----------------------------------------------------------------------------------------------

    async def _clean(self, stopped: bool) -> None:
        """Remove the scratch directories that hold no results, then say how things stand.

        One cancellation is waited out, the next one ends it.
        """
        kept = self._kept()
        self._hold()
        removing = asyncio.create_task(self._scratch.remove(kept))
        reason = "it was interrupted"
        try:
            reason = await asyncio.shield(removing)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling() > 1:
                removing.cancel()
            reason = await removing
            raise
        finally:
            self._conclude(stopped, kept, reason)

    def _conclude(self, stopped: bool, kept: Sequence[str], reason: str) -> None:
        left = self._scratch.nodes()
        for line in self._shown.report.text().splitlines():
            self._shown.line(line)
        for line in self._notices(kept, [node for node in left if node not in kept], reason):
            self._shown.line(printable(f"stage: {line}"))
        if stopped:
            what = "nothing was staged out" if self._code is None else "not all of its outputs were staged out"
            self._shown.say(f"the job was stopped; {what}" + ("" if left else ", its scratch directories were removed"))
        paths = {node.name: self._path(node) for node in self._job.nodes if node.name in left}
        self._phase("end", job=self._job.id, kept=paths)

    def _notices(self, kept: Sequence[str], stuck: Sequence[str], reason: str) -> list[str]:
        """What is still on the nodes, where, and what to do about it."""
        base = self._place.layout.base
        remove = f"rm -r {shlex.quote(str(base))}" if self._private else "remove it"
        lines = []
        if kept:
            what = "outputs that did not come back are" if self._owed else "the scratch is"
            places = ", ".join(self._job.scratches(kept))
            lines.append(f"{what} kept in {places}; copy what you need, then {remove}")
        if stuck and not (self._private and not kept):  # else it goes with the private cluster
            places = ", ".join(self._job.scratches(stuck))
            lines.append(f"scratch was not removed: {reason}; it is in {places}")
        return lines
