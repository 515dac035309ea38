"""stage: the one command for all that has no name of its own from older days."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

import click

from cluster import console

COMMANDS = {
    "check": "scheduler_hooks.commands.check",
    "down": "cluster.commands.down",
    "each": "scheduler_hooks.commands.each",
    "keys": "cluster.commands.keys",
    "run": "scheduler_hooks.commands.run",
    "status": "cluster.commands.status",
    "up": "cluster.commands.up",
}


class Lazy(click.Group):
    """Imports a subcommand only when it is used, since starting fast matters in hooks and shells."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        found: click.Command = importlib.import_module(COMMANDS[name]).command
        return found


@click.group(cls=Lazy)
@click.version_option(package_name="longshore", message="stage %(version)s (longshore)")
def command() -> None:
    """Stage files for jobs: inputs onto the nodes, processes watched there, outputs back through a queue."""


def main() -> NoReturn:
    console.main(command, "stage")


if __name__ == "__main__":
    sys.exit(main())
