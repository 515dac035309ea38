"""stage each: run a command on every node of the job, from inside the job's script."""

from __future__ import annotations

import os
from typing import Any

import click

from cluster import console, door
from cluster.door import ENV_DOOR
from cluster.launch_request import LaunchRequest
from cluster.layout import find, working_directory
from cluster.nodes import fold, parse
from cluster.output import Mode, Output
from cluster.printing import Guard, printable, write_through
from cluster.run import Grace, Process, run, umask
from scheduler_hooks.commands.common import kill_wait_option, user
from scheduler_hooks.patterns import Values, fill
from staging.mover.errors import UsageError, describe, from_wire

NEEDED = ("STAGE_NODELIST", "STAGE_NODE", "STAGE_JOB_ID", "STAGE_DIR")


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("-w", "--nodes", "specs", metavar="NODESET", multiple=True, help="Only these nodes of the job; adds up.")
@click.option("-b", "--gather", is_flag=True, help="Print at the end, identical output once.")
@click.option("-N", "--no-label", is_flag=True, help="Do not put the node's name before each line.")
@kill_wait_option
@click.argument("argv", nargs=-1, required=True, metavar="[--] CMD...")
def command(specs: tuple[str, ...], gather: bool, no_label: bool, kill_wait: int, argv: tuple[str, ...]) -> int:
    """Run CMD on every node of the job. In its words %N is the node's name and %n its rank (%% a percent sign).

    Output comes with the node's name before each line. CMD has no input. The exit status is the highest of all, 128+N
    for signal N; which nodes had one that is not 0 is said at the end.
    """
    names = _job_nodes()
    chosen = _chosen(specs, names)
    layout = find()
    roots = {n["name"]: n["root"] for n in door.ask(layout, {"op": "status"})["nodes"]}
    processes = [_process(names.index(name), name, argv, roots) for name in chosen]
    mode: Mode = "gather" if gather else "raw" if no_label else "label"
    codes: dict[str, int] = {}
    failed: dict[str, int] = {}
    grace = Grace(kill_wait)

    said = Guard("what the processes say")

    def tell(event: dict[str, Any]) -> None:
        if event["type"] == "exit":
            codes[event["node"]] = event["code"]
        else:
            line, failed[event["node"]] = describe(from_wire(event["error"]))
            click.echo(printable(f"stage each: {event['node']}: {line}"), err=True)

    async def work() -> int:
        import asyncio

        from cluster.line import ask

        hello = await ask(layout, {"op": "hello"})
        task = asyncio.current_task()
        assert task is not None

        def write(stream: str, data: bytes) -> None:
            if said.error is None and not said(write_through, stream, data):
                task.cancel()  # nobody hears the processes any more

        try:
            await run(layout, hello["host"], processes, Output(mode, write), tell, grace)
        except asyncio.CancelledError:
            if said.error is None:
                raise
        if said.error is not None:
            raise said.error
        for code in sorted(set(codes.values()) - {0}):
            ended = fold(node for node in chosen if codes.get(node) == code)
            click.echo(f"stage each: {ended} ended with exit code {code}", err=True)
        return max([*codes.values(), *failed.values()], default=0)

    return console.drive(work, again=grace.cut)


def _job_nodes() -> tuple[str, ...]:
    for name in NEEDED:
        if not os.environ.get(name):
            raise UsageError(f"`stage each` is for job scripts: there is no {name} here", "use `stage run JOB`")
    return tuple(os.environ["STAGE_NODELIST"].split(","))


def _chosen(specs: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """The nodes of all the `-w` together, all nodes of the job without one."""
    chosen = tuple(dict.fromkeys(name for spec in specs for name in parse(spec))) if specs else names
    for name in chosen:
        if name not in names:
            raise UsageError(f"{name} is not a node of this job", f"choose from {fold(names)}")
    return chosen


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
