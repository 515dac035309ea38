"""stage each: run a command on every node of the job, from inside the job's script."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from cluster import console, door
from cluster.door import ENV_DOOR
from cluster.launch_request import LaunchRequest
from cluster.layout import find, working_directory
from cluster.nodes import fold, parse
from cluster.output import Mode, Output
from cluster.run import Grace, Process, run, umask
from scheduler_hooks.commands.common import kill_wait_option, user
from scheduler_hooks.patterns import Values, fill
from staging.mover.errors import UsageError, describe, from_wire


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-w", "--nodes", "spec", metavar="NODESET", help="Only these nodes of the job.")
@click.option("-b", "--gather", is_flag=True, help="Print at the end, identical output once.")
@click.option("-N", "--no-label", is_flag=True, help="Do not put the node's name before each line.")
@kill_wait_option
@click.argument("argv", nargs=-1, required=True, metavar="[--] CMD...")
def command(spec: str | None, gather: bool, no_label: bool, kill_wait: int, argv: tuple[str, ...]) -> int:
    """Run CMD on every node of the job. In its words %N is the node's name and %n its rank (%% a percent sign).

    Output comes with the node's name before each line. The exit status is the highest of all, 128+N for signal N.
    """
    names = _job_nodes()
    chosen = parse(spec) if spec else names
    for name in chosen:
        if name not in names:
            raise UsageError(f"{name} is not a node of this job", f"choose from {fold(names)}")
    layout = find()
    roots = {n["name"]: n["root"] for n in door.ask(layout, {"op": "status"})["nodes"]}
    processes = [_process(names.index(name), name, argv, roots) for name in chosen]
    mode: Mode = "gather" if gather else "raw" if no_label else "label"
    codes: list[int] = []
    grace = Grace(kill_wait)

    def write(stream: str, data: bytes) -> None:
        target = sys.stdout if stream == "stdout" else sys.stderr
        target.buffer.write(data)
        target.buffer.flush()

    def tell(event: dict[str, Any]) -> None:
        if event["type"] == "exit":
            codes.append(event["code"])
        else:
            line, code = describe(from_wire(event["error"]))
            click.echo(f"stage each: {event['node']}: {line}", err=True)
            codes.append(code)

    async def work() -> int:
        from cluster.line import ask

        hello = await ask(layout, {"op": "hello"})
        await run(layout, hello["host"], processes, Output(mode, write), tell, grace)
        return max(codes, default=0)

    return console.drive(work, again=grace.cut)


def _job_nodes() -> tuple[str, ...]:
    try:
        return tuple(os.environ["STAGE_NODELIST"].split(","))
    except KeyError:
        raise UsageError(
            "`stage each` is for job scripts: there is no STAGE_NODELIST here", "use `stage run JOB`"
        ) from None


def _process(rank: int, name: str, argv: tuple[str, ...], roots: dict[str, str]) -> Process:
    """The process for one node: its patterns filled in, and its own paths where nodes share this machine."""
    here = roots.get(os.environ["STAGE_NODE"], "")
    there = roots.get(name, "")

    def local(text: str) -> str:
        # embedded nodes have each a root of their own; on real nodes a path is the same everywhere
        return text.replace(here, there) if here and there else text

    values = Values(os.environ["STAGE_JOB_ID"], user(), os.environ.get("STAGE_JOB_NAME", ""), name, rank)
    words = tuple(local(fill(word, values)) for word in argv)
    env = {**os.environ, "STAGE_RANK": str(rank), "STAGE_NODE": name}
    env["STAGE_DIR"] = local(env["STAGE_DIR"])
    if ENV_DOOR in env:
        env[ENV_DOOR] = str(find().door(name))
    return Process(name, rank, LaunchRequest(words, env, local(str(working_directory())), env["STAGE_DIR"], umask()))
