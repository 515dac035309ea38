"""stage check: parse and validate a job script without doing anything."""

from __future__ import annotations

import click

from cluster.commands.options import cluster_option
from cluster.layout import find
from scheduler_hooks.commands.common import load


@click.command()
@click.argument("job", metavar="JOB")
@click.option("--nodes", "count", type=click.IntRange(min=1), help="Check for this many nodes.")
@cluster_option
def command(job: str, count: int | None, cluster_dir: str | None) -> None:
    """Check the #STAGE lines of JOB and the files they name, from the directory this is typed in.

    The job's nodes are those that `stage run` would give it.
    """
    script, _ = load(job, count, find(cluster_dir))
    click.echo(f"{job}: {len(script.inputs)} in, {len(script.outputs)} out: all well", err=True)
