"""stage down: end an embedded cluster."""

from __future__ import annotations

import click

from cluster import embedded
from cluster.commands.options import cluster_option
from cluster.layout import find


@click.command()
@cluster_option
@click.option("--keep", is_flag=True, help="Leave the nodes' files where they are.")
def command(cluster_dir: str | None, keep: bool) -> None:
    """End the embedded cluster and remove its files, the nodes' file trees included."""
    layout = find(cluster_dir)
    embedded.stop(layout, keep)
    kept = f"; its files are kept in {layout.base}" if keep else ""
    click.echo(f"the cluster has ended{kept}", err=True)
