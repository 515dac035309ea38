"""stage keys: the keys by which heads and activated node services know each other."""

from __future__ import annotations

import datetime
from pathlib import Path

import click

from cluster import pki


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
def command(directory: Path) -> None:
    """Make a site's keys in DIRECTORY, unless they are there, for `stage up --dial` and longshore-node.service.

    Install the three files, with the same modes, on every node. Whoever has them may run anything there as its user.
    """
    files = pki.ensure(directory.absolute(), now=datetime.datetime.now(datetime.UTC))
    click.echo("\n".join(map(str, files.paths)))
