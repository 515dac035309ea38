"""stage up: start an embedded cluster that serves several commands."""

from __future__ import annotations

import time

import click

from cluster import door, embedded
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
    took = time.monotonic() - started
    up = sum(node["state"] == "up" for node in door.ask(layout, {"op": "status"})["nodes"])
    nodes = f"{count} node" if count == 1 else f"{count} nodes"
    if up > count:
        click.echo(f"{up} nodes are up already, more than the {count} asked for; `stage down` ends them all", err=True)
    else:
        click.echo(f"{nodes} up in {took:.1f} s; `stage down` ends {'it' if count == 1 else 'them'}", err=True)
