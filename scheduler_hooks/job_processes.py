"""Processes of one job on its nodes, with the environment that the job's processes see."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster import run as processes
from cluster.door import ENV_DOOR
from cluster.launch_request import LaunchRequest
from cluster.layout import ENV_CLUSTER
from cluster.output import Output
from scheduler_hooks.job import ENV_KILL_WAIT, Job, JobNode
from staging.copy import Place
from staging.mover.errors import StageError, from_wire


@dataclass
class Ends:
    """How the processes of a run ended, by node: their exit codes, and why those that have none could not be run."""

    codes: dict[str, int] = field(default_factory=dict)
    errors: dict[str, StageError] = field(default_factory=dict)


class JobProcesses:
    def __init__(self, place: Place, job: Job, grace: processes.Grace) -> None:
        self.job = job
        self._place = place
        self._grace = grace

    def process(
        self, node: JobNode, argv: Sequence[str], directory: str, otherwise: str | None = None, umask: int = 0o022
    ) -> processes.Process:
        """`argv` on `node`, started in `directory`, or in `otherwise` where that is not there."""
        request = LaunchRequest(tuple(argv), self._environment(node), directory, otherwise, umask)
        return processes.Process(node.name, node.rank, request)

    def _environment(self, node: JobNode) -> dict[str, str]:
        env = {**os.environ, **self.job.environment(node)}
        env[ENV_CLUSTER] = str(self._place.layout.base)
        env[ENV_DOOR] = str(self._place.layout.door(node.name))
        env[ENV_KILL_WAIT] = str(self._grace.seconds)
        if shutil.which("stage", path=env.get("PATH", "")) is None:
            # `stage each` must be found in the script also where the virtual environment is not active
            env["PATH"] = os.pathsep.join(filter(None, [env.get("PATH", ""), os.path.dirname(sys.executable)]))
        return env

    async def run(
        self,
        started: Sequence[processes.Process],
        output: Output,
        on_exit: Callable[[dict[str, Any]], None] | None = None,
    ) -> Ends:
        """Run them to their ends; `on_exit` is told each `exit` event as it comes. Raises what ended the run itself."""
        ends = Ends()

        def tell(event: dict[str, Any]) -> None:
            if event["type"] == "exit":
                ends.codes[event["node"]] = event["code"]
                if on_exit is not None:
                    on_exit(event)
            else:
                ends.errors[event["node"]] = from_wire(event["error"])

        await processes.run(self._place.layout, self._place.host, started, output, tell, self._grace)
        return ends
