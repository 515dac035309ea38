"""stage check: parse and validate a job script without doing anything."""

from __future__ import annotations

import click

from cluster.layout import working_directory
from scheduler_hooks.commands.common import assumed_nodes, check, read_script


@click.command()
@click.argument("job", metavar="JOB")
@click.option("--nodes", "count", type=click.IntRange(min=1), help="Check for this many nodes.")
def command(job: str, count: int | None) -> None:
    """Check the #STAGE lines of JOB and the files they name, from the directory this is typed in."""
    script, problems = read_script(job)
    named = count is not None or script.nodes is not None
    check(script, problems, assumed_nodes(script, count) if named else ("n1",), working_directory())
    click.echo(f"{job}: {len(script.inputs)} in, {len(script.outputs)} out: all well", err=True)
