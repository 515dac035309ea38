"""stage up: start a cluster that serves several commands, on this machine or on others."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cluster import door, embedded
from cluster.commands.options import cluster_option
from cluster.layout import Layout, find
from staging.mover.errors import PartialError, StageError, UsageError

if TYPE_CHECKING:
    from cluster.hosted import Options
    from cluster.kit import Way

SERVICES = ("cluster.spawn", "staging.service")


@click.command()
@cluster_option
@click.option("--local", "count", type=int, metavar="N", help="Run N nodes on this machine.")
@click.option("--hosts", metavar="FILE|NODESET", help="Start a node on each of these hosts, by ssh.")
@click.option("--python", default="", metavar="PATH", help="Hosts: the interpreter. Default: this one, else stage's.")
@click.option("--address", default="", help="Hosts: this host's address, for them to dial. Default: as routed.")
@click.option("--node-dir", default="", metavar="DIR", help="Hosts: for keys and sockets there. Default: in /tmp.")
@click.option("--ssh-config", default="", metavar="FILE", help="Hosts: instead of your ssh configuration.")
@click.option("--connect-timeout", type=click.FloatRange(0.1, 600), default=10.0, show_default=True, metavar="SECONDS")
@click.option("--at-once", type=click.IntRange(1, 1000), default=32, show_default=True, metavar="N")
@click.option("--dial", type=click.IntRange(1, 65535), metavar="PORT", help="Hosts: by longshore-node.socket, not ssh.")
@click.option("--keys", metavar="DIR", help="With --dial: the keys that `stage keys` made.")
def command(
    cluster_dir: str | None,
    count: int | None,
    hosts: str | None,
    python: str,
    address: str,
    node_dir: str,
    ssh_config: str,
    connect_timeout: float,
    at_once: int,
    dial: int | None,
    keys: str | None,
) -> None:
    """Start a cluster, or what is missing of it, and keep it running."""
    if (count is None) == (hosts is None):
        raise UsageError("say which nodes: --local N or --hosts FILE|NODESET", "see `stage up --help`")
    if (dial is None) != (keys is None):
        raise UsageError("--dial PORT and --keys DIR go together", "make keys with `stage keys DIR`")
    if dial is not None and (hosts is None or python or ssh_config):
        raise UsageError("--dial goes with --hosts, without ssh's options", "see `stage up --help`")
    if node_dir and not node_dir.startswith("/"):
        raise UsageError(f"--node-dir {node_dir} is not an absolute path", "write it from / on")
    layout = find(cluster_dir)
    if count is not None:
        started = time.monotonic()
        embedded.start(layout, count, SERVICES)
        took = time.monotonic() - started
        up = sum(node["state"] == "up" for node in door.ask(layout, {"op": "status"})["nodes"])
        if up > count:
            more = f"{up} nodes are up already, more than the {count} asked for"
            click.echo(f"{more}; `stage down` ends them all", err=True)
        else:
            _say_up(count, took)
        return
    assert hosts is not None
    from cluster.hosted import Options  # here and below: an ssh client takes long to import

    options = Options(address, node_dir, at_once)
    if dial is not None and keys is not None:
        from cluster.dial import ByDial

        _start_hosts(layout, hosts, ByDial(dial, Path(keys), connect_timeout), options)
    else:
        from cluster.remote import BySsh
        from cluster.ssh import Dialer

        _start_hosts(layout, hosts, BySsh(Dialer(connect_timeout, ssh_config), python), options)


def _start_hosts(layout: Layout, spec: str, way: Way, options: Options) -> None:
    from cluster import hosted, hosts

    started = time.monotonic()

    def tell(name: str, error: StageError | None) -> None:
        click.echo(f"{name}: {error or 'up'}", err=True)

    outcome = hosted.start(layout, hosts.find(spec), way, SERVICES, options, tell)
    up, failed = len(outcome.up), outcome.failed
    if not failed:
        _say_up(up, time.monotonic() - started)
        return
    of = f"{up} of {up + len(failed)} nodes are up"
    classes = {type(error) for error in failed.values()}
    if not up and len(classes) == 1:
        raise classes.pop()(of, "mend what their lines name")
    raise PartialError(of, "mend what their lines name, then give the same command again")


def _say_up(count: int, took: float) -> None:
    nodes, them = ("node", "it") if count == 1 else ("nodes", "them")
    click.echo(f"{count} {nodes} up in {took:.1f} s; `stage down` ends {them}", err=True)
