"""stage up: start a cluster that serves several commands, on this machine or on others."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from cluster import embedded
from cluster.commands.options import cluster_option
from cluster.layout import Layout, find
from staging.mover.errors import PartialError, StageError, UsageError

if TYPE_CHECKING:
    from cluster.hosted import Options

SERVICES = ("cluster.spawn", "staging.service")


@click.command()
@cluster_option
@click.option("--local", "count", type=int, metavar="N", help="Run N nodes on this machine.")
@click.option("--hosts", metavar="FILE|NODESET", help="Start a node on each of these hosts, by ssh.")
@click.option("--python", default="", metavar="PATH", help="With --hosts: the interpreter to use there.")
@click.option("--address", default="", help="With --hosts: this host's address, for the nodes to dial.")
@click.option("--node-dir", default="", metavar="DIR", help="With --hosts: for the nodes' keys and sockets there.")
@click.option("--ssh-config", default="", metavar="FILE", help="With --hosts: ssh's configuration, instead of yours.")
@click.option("--connect-timeout", type=click.FloatRange(0.1, 600), default=10.0, show_default=True, metavar="SECONDS")
@click.option("--at-once", type=click.IntRange(1, 1000), default=32, show_default=True, help="ssh connections.")
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
) -> None:
    """Start a cluster, or what is missing of it, and keep it running."""
    if (count is None) == (hosts is None):
        raise UsageError("say which nodes: --local N or --hosts FILE|NODESET", "see `stage up --help`")
    layout = find(cluster_dir)
    started = time.monotonic()
    if hosts is not None:
        from cluster.hosted import Options  # here, for it imports an ssh client

        _start_hosts(layout, hosts, Options(python, address, node_dir, ssh_config, connect_timeout, at_once))
        return
    assert count is not None
    embedded.start(layout, count, SERVICES)
    _say_up(count, started)


def _start_hosts(layout: Layout, spec: str, options: Options) -> None:
    from cluster import hosted, hosts

    started = time.monotonic()

    def tell(name: str, error: StageError | None) -> None:
        click.echo(f"{name}: {error or 'up'}", err=True)

    outcome = hosted.start(layout, hosts.find(spec), SERVICES, options, tell)
    up, failed = len(outcome.up), outcome.failed
    if not failed:
        _say_up(up, started)
        return
    of = f"{up} of {up + len(failed)} nodes are up"
    classes = {type(error) for error in failed.values()}
    if not up and len(classes) == 1:
        raise classes.pop()(of, "mend what their lines name")
    raise PartialError(of, "mend what their lines name, then give the same command again")


def _say_up(count: int, started: float) -> None:
    nodes = "node" if count == 1 else "nodes"
    click.echo(f"{count} {nodes} up in {time.monotonic() - started:.1f} s; `stage down` ends them", err=True)
