"""stage down: end an embedded cluster."""

from __future__ import annotations

import shlex

import click

from cluster import embedded
from cluster.commands.options import cluster_option
from cluster.layout import find


@click.command()
@cluster_option
@click.option("--keep", is_flag=True, help="Leave the nodes' files where they are.")
def command(cluster_dir: str | None, keep: bool) -> None:
    """End the embedded cluster and remove its files, the nodes' file trees included.

    Where `stage run` had to keep results in those they stay until you have removed them.
    """
    layout = find(cluster_dir)
    embedded.stop(layout, keep)
    kept = f"; its files are kept in {layout.base}" if keep else ""
    if layout.kept() and not keep:
        kept = (
            f"; results that were kept are still in {layout.nodes}, rm -r {shlex.quote(str(layout.base))} removes them"
        )
    click.echo(f"the cluster has ended{kept}", err=True)
