"""stage run: carry out a job script with its staging, on the running cluster or on one of its own."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import click

from cluster import console, embedded
from cluster.commands.options import cluster_option
from cluster.commands.up import SERVICES
from cluster.layout import Layout, find, personal, working_directory
from cluster.nodes import resolve_count
from scheduler_hooks.commands.common import kill_wait_option, load, members, nodes_up, user
from scheduler_hooks.dry_run import as_events, plan, render
from scheduler_hooks.job import Job, JobNode
from scheduler_hooks.jobscript import JobScript
from staging.mover.errors import StageError, UsageError
from staging.options import json_option, progress_option
from staging.wording import count as number


@click.command()
@click.argument("job", metavar="JOB")
@click.option("--nodes", "count", type=click.IntRange(min=1), help="Nodes to use; wins over #STAGE nodes.")
@click.option("-n", "--dry-run", is_flag=True, help="Print what would be staged, and stop.")
@click.option("--keep", is_flag=True, help="Leave the scratch directories where they are, and say where.")
@kill_wait_option
@cluster_option
@progress_option
@json_option
def command(
    job: str,
    count: int | None,
    dry_run: bool,
    keep: bool,
    kill_wait: int,
    cluster_dir: str | None,
    progress: str,
    as_json: bool,
) -> int:
    """Stage the inputs of JOB in, run it on its first node, and stage its outputs out.

    Without a running cluster (see `stage up`) one is started on this machine for this job alone. The exit status is
    the job's own; if the job ended well, the staging's (docs/exit-codes.md).
    """
    manner = Manner(progress, as_json, keep, kill_wait)
    layout = find(cluster_dir)
    script, nodes = load(job, count, layout)
    if dry_run:
        copies = plan(_job(script, "1", nodes))
        click.echo(as_events(copies) if as_json else render(copies), nl=False)
        return 0
    if nodes[0].address:
        return _carry_out(layout, script, nodes, manner)
    names = [node.name for node in nodes]
    strangers = [name for name in names if name not in resolve_count(len(names))]
    if strangers:
        raise UsageError(
            f"no cluster with the node {strangers[0]} is running", "start it, or ask for a number of nodes"
        )
    if progress != "none" and not as_json:
        here = f"{number(len(names), 'node')} on this machine for this job"
        click.echo(f"no cluster is running: starting {here}", err=True)
    with _own_cluster(len(names)) as own:
        return _carry_out(own, script, members(names, nodes_up(own)), replace(manner, private=True))


def _job(script: JobScript, number: str, nodes: tuple[JobNode, ...]) -> Job:
    return Job(number, os.path.basename(script.name), user(), str(working_directory()), nodes, script)


@contextmanager
def _own_cluster(count: int) -> Iterator[Layout]:
    """A cluster that ends with this command, however this command ends; its files stay where results are in them."""
    home = personal()
    home.mkdir(mode=0o700, exist_ok=True)
    layout = Layout(Path(tempfile.mkdtemp(prefix="run-", dir=home)))
    owner = None
    try:
        layout.make()
        layout.jobs_file.write_text(str(time.time_ns() // 1_000_000 - 1))  # no two private clusters have the same job
        owner = embedded.start(layout, count, SERVICES, owned=True)
        yield layout
    finally:
        with suppress(StageError):  # where it has not come up, or has ended already
            embedded.stop(layout)
        if owner is not None:
            os.close(owner)
        embedded.remove(layout)


@dataclass(frozen=True)
class Manner:
    """How a job is carried out; see `Runner` for `keep` and `private`."""

    progress: str
    as_json: bool
    keep: bool
    kill_wait: int
    private: bool = False


def _carry_out(layout: Layout, script: JobScript, nodes: tuple[JobNode, ...], manner: Manner) -> int:
    from cluster.run import Grace

    grace = Grace(manner.kill_wait)

    async def work() -> int:
        from cluster.line import ask
        from scheduler_hooks.runner import Runner
        from staging.copy import Place
        from staging.show import show

        hello = await ask(layout, {"op": "hello", "new_job": True})
        async with show(manner.progress, manner.as_json) as shown:  # type: ignore[arg-type]
            job = _job(script, hello["job"], nodes)
            place = Place(layout, hello["host"])
            runner = Runner(place, job, shown, grace=grace, keep=manner.keep, private=manner.private)
            code = await runner.run()
        failure = runner.failure(code)
        if failure is not None:
            raise failure
        return code

    return console.drive(work, again=grace.cut)
