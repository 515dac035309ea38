"""stage status: which nodes there are. It talks to the head's door only and imports no Dask, to be quick."""

from __future__ import annotations

import json

import click

from cluster import door
from cluster.commands.options import cluster_option
from cluster.layout import find

COLUMNS = ("name", "address", "state", "pid", "root")


@click.command()
@cluster_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(cluster_dir: str | None, as_json: bool) -> None:
    """Show the nodes of the running cluster: name, address, state, the service's pid, the root of its file tree."""
    layout = find(cluster_dir)
    answer = door.ask(layout, {"op": "status"})
    if as_json:
        answer.pop("type")
        click.echo(json.dumps({"schema": 1, "cluster": str(layout.base), **answer}))
        return
    rows = [COLUMNS, *([str(node[c]) for c in COLUMNS] for node in answer["nodes"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
