"""pcp: copy files to many nodes along a tree of TCP streams."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from cluster import console, door
from cluster.layout import find
from staging.hosts import Known, choose_hosts, read_host_file
from staging.mover.errors import UsageError
from staging.mover.wire import MAX_BLOCK
from staging.options import json_option, progress_option
from staging.planning import Preview, link_of, parse_link, plan_options, read_topology
from staging.sources import check_sources
from staging.units import human_bytes, human_seconds, parse_rate, parse_size, printable

MIN_BLOCK = 4 << 10

HELP = """Copy SRC... to DEST on every HOST, each node passing on what it receives.

\b
  pcp genome.fa /scratch/ n1 n2        becomes /scratch/genome.fa
  pcp -rp data /scratch/set "n[1-64]"  becomes /scratch/set/data
  pcp -rp data/ /scratch/set -w @gpu   what is in data becomes what is in /scratch/set

A HOST is a node's name, a node set such as n[1-8], a @group of ClusterShell, or a node's address. DEST is an absolute
path on the nodes. It is a directory to put things into if it ends with a slash (it is made, its parents too), if it
is a directory there, if SRC is a directory, or if there are several SRC; else it is the copy's name. The same command
again sends only what is missing or differs.

Exit status: 0 when every host has it, 3 when some have; when none has, the reason's: 2 wrong command line, 4 source
missing or unreadable, 5 try again, 6 wrong bytes, 7 not allowed, 8 no space or out of time.
"""


class Lines:
    """The classic line for each host, on standard output; `verbose` adds what it took."""

    def __init__(self, known: Known, echo: Callable[[str], None] = click.echo, verbose: bool = False) -> None:
        self._known = known
        self._echo = echo
        self._verbose = verbose

    def tell(self, event: dict[str, Any]) -> None:
        node = event.get("node", "")
        place = f"{node} ({self._known.get(node, '?')})"
        if event["type"] == "node-done":
            self._echo(f"Write succeeded on {place}{_amounts(event) if self._verbose else ''}")
        elif event["type"] == "node-failed":
            left = " (partial copy kept, run the same command to resume)" if event["partial"] else ""
            remedy = f"; {event['error']['remedy']}" if event["error"]["remedy"] and not left else ""
            self._echo(printable(f"Write failed on {place}: {event['error']['message']}{remedy}{left}"))


def _amounts(event: dict[str, Any]) -> str:
    by = " by size and time" if event.get("skipped") else ""
    there = f", {human_bytes(event['reused'])} already there{by}" if event["reused"] else ""
    digest = f", digest {event['digest'][:16]}" if event["digest"] else ""
    return f": {human_bytes(event['fetched'])} received{there}, {human_seconds(event['seconds'])}{digest}"


@click.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("words", nargs=-1, required=True, metavar="SRC... DEST [HOST...]")
@click.option("-w", "--nodes", "named", multiple=True, metavar="NODESET", help="The hosts; none then follows DEST.")
@click.option("-x", "--exclude", "excluded", multiple=True, metavar="NODESET", help="All the hosts but these.")
@click.option("--nodes-from", metavar="FILE", help="Read the hosts from FILE (-: standard input); # begins a comment.")
@click.option("-r", "--recursive", is_flag=True, help="Copy directories with all that is in them.")
@click.option("-p", "--preserve", is_flag=True, help="Keep modes and times; skip files whose size and time are equal.")
@click.option("--checksum", is_flag=True, help="With -p: look at the bytes of files of equal size and time too.")
@click.option(
    "-f", "--fanout", default="auto", metavar="SHAPE", help="Children a node: 1 (chain), 2, ...; double or trees:4."
)
@click.option(
    "-b", "--block", "--frag-size", default="0", metavar="SIZE", help="Block size, as 256K. Default: by size."
)
@click.option("--bwlimit", default="0", metavar="RATE", help="What one host may send, in bytes/s, as 500K, 100M, 1.5G.")
@click.option("--timeout", type=float, default=0, metavar="SECONDS", help="Stop then; hosts that have it keep it.")
@click.option("--best-effort", is_flag=True, hidden=True, help="As always: a bad host costs only its own copy.")
@click.option("-q", "--quiet", is_flag=True, help="Print only failures, show no progress.")
@click.option("-v", "--verbose", is_flag=True, help="Say for each host what was received, and what was there.")
@click.option("--cluster", "cluster_dir", metavar="DIR", help="The cluster's directory. Default: $STAGE_CLUSTER.")
@plan_options
@progress_option
@json_option
@click.version_option(None, "-V", "--version", package_name="longshore", prog_name="pcp")
def command(
    words: tuple[str, ...],
    named: tuple[str, ...],
    excluded: tuple[str, ...],
    nodes_from: str | None,
    recursive: bool,
    preserve: bool,
    checksum: bool,
    fanout: str,
    block: str,
    bwlimit: str,
    timeout: float,
    best_effort: bool,
    quiet: bool,
    verbose: bool,
    cluster_dir: str | None,
    plan_only: bool,
    topology: str | None,
    link: str | None,
    progress: str,
    as_json: bool,
) -> int:
    from staging.copy import Place, Push, push
    from staging.plan.tree import Shape
    from staging.show import show

    if fanout != "auto":
        fanout = str(Shape.parse(fanout))
    block_size, rate, seconds = block_bytes(block), parse_rate(bwlimit), time_limit(timeout)
    listed = host_file(nodes_from)
    layout = find(cluster_dir)
    known = {n["name"]: n["address"] for n in door.ask(layout, {"op": "status"})["nodes"]}
    (*sources, dest), nodes = choose_hosts(words, known, [*named, *listed], excluded)
    order = Push(
        label="copy",
        what=", ".join(sources),
        sources=tuple(sources),
        contents=check_sources(sources, recursive),
        dest=dest,
        nodes=nodes,
        parents=dest.endswith("/"),
        preserve=preserve,
        checksum=checksum,
        shape=fanout,
        block=block_size,
        rate=rate,
        timeout=seconds,
        topology=read_topology(topology),
        link=min(parse_link(link) or rate, rate) if rate else parse_link(link),
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
            lines = Lines(known, shown.display.print_line if sys.stdout.isatty() else click.echo, verbose)

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


def block_bytes(text: str) -> int:
    """The block size that was asked for, 0 for none; UsageError outside what makes sense."""
    size = parse_size(text)
    if size and not MIN_BLOCK <= size <= MAX_BLOCK:
        raise UsageError(f"a block of {text} is out of range", f"give {MIN_BLOCK >> 10}K to {MAX_BLOCK >> 20}M")
    return size


def time_limit(seconds: float) -> float:
    """--timeout: seconds, 0 for no limit."""
    if not (math.isfinite(seconds) and seconds >= 0):
        raise UsageError(f"{seconds} is no time limit", "give seconds, 0 for no limit")
    return seconds


def host_file(name: str | None) -> Sequence[str]:
    """The words of --nodes-from."""
    if name is None:
        return ()
    try:
        with click.open_file(name, encoding="utf-8") as file:
            words = read_host_file(file.read())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"cannot read hosts from {name}: {reason}", "name a file with node sets") from None
    if not words:
        raise UsageError(f"no host is named in {name}", "write node sets there, such as n[1-8]")
    return words


def main() -> NoReturn:
    console.main(command, "pcp")


if __name__ == "__main__":
    sys.exit(main())
