"""The option that names a cluster."""

from __future__ import annotations

import click

cluster_option = click.option(
    "--cluster", "cluster_dir", metavar="DIR", help="The cluster's directory. Default: $STAGE_CLUSTER, else your own."
)
