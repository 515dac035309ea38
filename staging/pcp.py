"""pcp: copy files to many nodes along a tree of TCP streams."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from cluster import console, door
from cluster.layout import find
from cluster.nodes import fold, parse
from staging.mover.errors import UsageError
from staging.mover.wire import MAX_BLOCK
from staging.options import json_option, progress_option
from staging.planning import Preview, link_of, parse_link, plan_options, read_topology
from staging.units import human_bytes, parse_size, printable

Known = dict[str, str]  # name to address


def split_hosts(words: Sequence[str], known: Known) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tell `SRC... DEST` from the `HOST...` that follow: hosts are the longest run of node names at the end."""
    if len(words) < 3:
        raise UsageError("pcp needs a source, a destination and at least one host", "write pcp SRC... DEST HOST...")
    if not all(words):
        raise UsageError("an empty word is no path and no host", "look at the variables on the command line")
    by_address = {address: name for name, address in known.items()}
    hosts: list[str] = []
    rest = list(words)
    while len(rest) > 2:
        word = rest[-1]
        names = [by_address[word]] if word in by_address else _names(word)
        if not names or not all(name in known for name in names):
            break
        hosts = [*names, *hosts]
        rest.pop()
    if not hosts:
        remedy = f"write pcp SRC... DEST HOST..., with hosts out of {fold(known)}" if known else "start some nodes"
        raise UsageError(f"{words[-1]!r} is no node of this cluster", remedy)
    return tuple(rest), tuple(dict.fromkeys(hosts))


def _names(word: str) -> list[str]:
    try:
        return list(parse(word))
    except UsageError:
        return []


class Lines:
    """The classic line for each host, on standard output."""

    def __init__(self, known: Known, echo: Callable[[str], None] = click.echo) -> None:
        self._known = known
        self._echo = echo

    def tell(self, event: dict[str, Any]) -> None:
        node = event.get("node", "")
        place = f"{node} ({self._known.get(node, '?')})"
        if event["type"] == "node-done":
            self._echo(f"Write succeeded on {place}")
        elif event["type"] == "node-failed":
            left = " (partial copy kept, run the same command to resume)" if event["partial"] else ""
            remedy = f"; {event['error']['remedy']}" if event["error"]["remedy"] and not left else ""
            self._echo(printable(f"Write failed on {place}: {event['error']['message']}{remedy}{left}"))


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="SRC... DEST HOST...")
@click.option("-r", "--recursive", is_flag=True, help="Copy directories with all that is in them.")
@click.option("-p", "--preserve", is_flag=True, help="Keep modes and times.")
@click.option(
    "-f", "--fanout", default="auto", metavar="SHAPE", help="1 (chain), 2, ... children a node; double or trees:4."
)
@click.option(
    "-b", "--block", default="0", metavar="SIZE", help="Block size, such as 256K. Default: by the file's size."
)
@click.option("-q", "--quiet", is_flag=True, help="Print only failures, show no progress.")
@click.option("--cluster", "cluster_dir", metavar="DIR", help="The cluster's directory. Default: $STAGE_CLUSTER.")
@plan_options
@progress_option
@json_option
def command(
    words: tuple[str, ...],
    recursive: bool,
    preserve: bool,
    fanout: str,
    block: str,
    quiet: bool,
    cluster_dir: str | None,
    plan_only: bool,
    topology: str | None,
    link: str | None,
    progress: str,
    as_json: bool,
) -> int:
    """Copy SRC... to DEST on every HOST. Hosts are node names, node sets such as n[1-8], or addresses.

    Exit status: 0 when every host has it, 3 when some have, otherwise the reason's (see docs/exit-codes.md).
    """
    from staging.copy import Place, Push, push
    from staging.plan.tree import Shape
    from staging.show import show

    if fanout != "auto":
        fanout = str(Shape.parse(fanout))
    block_size = parse_size(block)
    if block_size > MAX_BLOCK:
        raise UsageError(f"a block of {block} is too large", f"choose at most {human_bytes(MAX_BLOCK)}")
    layout = find(cluster_dir)
    known = {n["name"]: n["address"] for n in door.ask(layout, {"op": "status"})["nodes"]}
    (*sources, dest), nodes = split_hosts(words, known)
    check_sources(sources, recursive)
    order = Push(
        label="copy",
        what=", ".join(sources),
        sources=tuple(sources),
        dest=dest,
        nodes=nodes,
        preserve=preserve,
        shape=fanout,
        block=block_size,
        topology=read_topology(topology),
        link=parse_link(link),
    )
    if plan_only:
        links = link_of(known[nodes[0]], order.link)
        plan = Preview.of(sources, order.contents, nodes, fanout, block_size, links, order.topology)
        click.echo(plan.show(as_json))
        return 0

    async def work() -> int:
        from cluster.line import ask

        hello = await ask(layout, {"op": "hello"})
        async with show("none" if quiet else progress, as_json) as shown:  # type: ignore[arg-type]
            # on a terminal the lines must pass through the display, which would draw over them
            lines = Lines(known, shown.display.print_line if sys.stdout.isatty() else click.echo)

            def tell(event: dict[str, Any]) -> None:
                if event["type"] == "node-failed" and not as_json:
                    shown.report.update(event)  # told by its own line, below
                else:
                    shown.tell(event)
                if not as_json and not (quiet and event["type"] == "node-done"):
                    shown.printed(lines.tell, event)

            await push(Place(layout, hello["host"]), order, tell)
        failure = shown.report.failure()
        if failure is not None and as_json:
            raise failure  # the last event; in text each failure has been told by its line
        if failure is None and shown.printed.error is not None:
            raise shown.printed.error
        return shown.report.exit_code()

    return console.drive(work)


def check_sources(sources: Sequence[str], recursive: bool) -> None:
    """cp's rule: a directory needs -r."""
    import os

    for source in sources:
        if os.path.isdir(source) and not recursive:
            raise UsageError(f"{source} is a directory", "give -r to copy it with all that is in it")


def main() -> NoReturn:
    console.main(command, "pcp")


if __name__ == "__main__":
    sys.exit(main())
