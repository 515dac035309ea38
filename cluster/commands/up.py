"""stage up: start an embedded cluster that serves several commands."""

from __future__ import annotations

import time

import click

from cluster import embedded
from cluster.commands.options import cluster_option
from cluster.layout import find

SERVICES = ("cluster.spawn", "staging.service")


@click.command()
@cluster_option
@click.option("--local", "count", type=int, required=True, metavar="N", help="Nodes to run on this machine.")
def command(cluster_dir: str | None, count: int) -> None:
    """Start a cluster of N nodes on this machine, or what is missing of it, and keep it running."""
    layout = find(cluster_dir)
    started = time.monotonic()
    embedded.start(layout, count, SERVICES)
    click.echo(f"{count} nodes up in {time.monotonic() - started:.1f} s; `stage down` ends them", err=True)
