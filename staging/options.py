"""Options that several commands share."""

from __future__ import annotations

import click

progress_option = click.option(
    "--progress",
    type=click.Choice(["auto", "live", "lines", "none"]),
    default="auto",
    show_default=True,
    help="How to show progress, on standard error.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print events as JSON lines (docs/events.md).")
