"""stage run: carry out a job script with its staging, on the running cluster or on one of its own."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from cluster import console, door, embedded, startup
from cluster.commands.options import cluster_option
from cluster.commands.up import SERVICES
from cluster.layout import Layout, find, personal
from cluster.nodes import resolve_count
from scheduler_hooks.commands.common import assumed_nodes, check, read_script, user
from scheduler_hooks.dry_run import render
from scheduler_hooks.job import Job, JobNode, fit_nodes
from scheduler_hooks.jobscript import JobScript
from staging.mover.errors import TemporaryError, UsageError
from staging.options import json_option, progress_option


@click.command()
@click.argument("job", metavar="JOB")
@click.option("--nodes", "count", type=click.IntRange(min=1), help="Nodes to use; wins over #STAGE nodes.")
@click.option("-n", "--dry-run", is_flag=True, help="Print what would be staged, and stop.")
@cluster_option
@progress_option
@json_option
def command(job: str, count: int | None, dry_run: bool, cluster_dir: str | None, progress: str, as_json: bool) -> int:
    """Stage the inputs of JOB in, run it on its first node, and stage its outputs out.

    Without a running cluster (see `stage up`) one is started on this machine for this job alone. The exit status is
    the job's own; if the job ended well, the staging's (docs/exit-codes.md).
    """
    script, problems = read_script(job)
    layout = find(cluster_dir)
    up = _nodes_up(layout)
    names = fit_nodes(script, count, list(up)) if up else assumed_nodes(script, count)
    if names is None:
        raise TemporaryError(
            f"the cluster has {len(up)} nodes up, the job asks for more", "use --nodes, or start them with `stage up`"
        )
    check(script, problems, names, Path.cwd())
    if dry_run:
        click.echo(render(_job(script, "1", _members(names, up))), nl=False)
        return 0
    if up:
        return _carry_out(layout, script, _members(names, up), progress, as_json)
    strangers = [name for name in names if name not in resolve_count(len(names))]
    if strangers:
        raise UsageError(
            f"no cluster with the node {strangers[0]} is running", "start it, or ask for a number of nodes"
        )
    if progress != "none" and not as_json:
        click.echo(f"no cluster is running: starting {len(names)} nodes on this machine for this job", err=True)
    with _own_cluster(len(names)) as own:
        return _carry_out(own, script, _members(names, _nodes_up(own)), progress, as_json)


def _nodes_up(layout: Layout) -> dict[str, JobNode]:
    """The nodes of the running cluster that are up; none where no cluster runs."""
    if not startup.running(layout):
        return {}
    answer = door.ask(layout, {"op": "status"})
    return {n["name"]: JobNode(n["name"], 0, n["address"], n["root"]) for n in answer["nodes"] if n["state"] == "up"}


def _members(names: tuple[str, ...], up: dict[str, JobNode]) -> tuple[JobNode, ...]:
    missing = JobNode("", 0, "", "")
    found = [(name, rank, up.get(name, missing)) for rank, name in enumerate(names)]
    return tuple(JobNode(name, rank, node.address, node.root) for name, rank, node in found)


def _job(script: JobScript, number: str, nodes: tuple[JobNode, ...]) -> Job:
    return Job(number, os.path.basename(script.name), user(), os.getcwd(), nodes, script)


@contextmanager
def _own_cluster(count: int) -> Iterator[Layout]:
    """A cluster that ends with this command, however this command ends."""
    home = personal()
    home.mkdir(mode=0o700, exist_ok=True)
    layout = Layout(Path(tempfile.mkdtemp(prefix="run-", dir=home)))
    owner = None
    try:
        owner = embedded.start(layout, count, SERVICES, owned=True)
        yield layout
    finally:
        if owner is not None:
            embedded.stop(layout)
            os.close(owner)
        embedded.remove(layout)


def _carry_out(layout: Layout, script: JobScript, nodes: tuple[JobNode, ...], progress: str, as_json: bool) -> int:
    async def work() -> int:
        from cluster.line import ask
        from scheduler_hooks.runner import Runner
        from staging.copy import Place
        from staging.show import show

        hello = await ask(layout, {"op": "hello", "new_job": True})
        async with show(progress, as_json) as shown:  # type: ignore[arg-type]
            try:
                code = await Runner(Place(layout, hello["host"]), _job(script, hello["job"], nodes), shown).run()
            except asyncio.CancelledError:
                shown.say("the job was stopped and its scratch directories removed; nothing was staged out")
                raise
            finally:
                for line in shown.report.text().splitlines():
                    shown.display.print_line(line)
        return code

    return console.drive(work)
