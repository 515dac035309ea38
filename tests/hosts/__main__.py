"""`python -m tests.hosts up N [options] [-- COMMAND...]`: a cluster for as long as this command runs.

With a command: it runs on the head, and its exit code is the result. Without one: orders are read from standard input,
a line each, until its end:

    exec HOST COMMAND...          run a command on a host
    rate HOST 20mbit|off          loss HOST 1%|off    duplicates HOST 1%|off    delay HOST 2ms|off
    cut HOST    heal HOST    crash HOST    boot HOST    disk HOST PATH SIZE
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys

from tests.hosts.cluster import Cluster
from tests.hosts.needs import missing
from tests.hosts.network import HostsError

SETTINGS = ("rate", "loss", "duplicates", "delay")
ORDERS = {**dict.fromkeys(SETTINGS, 2), **dict.fromkeys(("cut", "heal", "crash", "boot"), 1), "disk": 3}
UNAVAILABLE = 69  # EX_UNAVAILABLE


def main(argv: list[str]) -> int:
    end = argv.index("--") if "--" in argv else len(argv)
    given, command = parse(argv[:end]), argv[end + 1 :]
    settings = {name: getattr(given, name) for name in (*SETTINGS, "nics", "sshd", "munged", "users", "scratch")}
    faults = bool(given.loss or given.duplicates)
    lacks = missing(sshd=given.sshd, munged=given.munged, users=given.users, faults=faults)
    if lacks:
        print(f"tests.hosts: this machine lacks {', '.join(lacks)}", file=sys.stderr)
        return UNAVAILABLE
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with Cluster(given.n, **settings) as cluster:
            if command:
                code = cluster.head.popen(command).wait()
                return code if code >= 0 else 128 - code
            for host in cluster.hosts.values():
                print(
                    f"{host.name:6} {host.address:12} {host.address6:12} nsenter --all --target {host.pid}", flush=True
                )
            for line in sys.stdin:
                obey(cluster, shlex.split(line, comments=True))
    except HostsError as error:
        print(f"tests.hosts: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tests.hosts", description=__doc__, formatter_class=text)
    up = parser.add_subparsers(required=True).add_parser("up", description=__doc__, formatter_class=text)
    up.add_argument("n", type=int, help="hosts beside the head")
    up.add_argument("--rate", help="of every link, such as 200mbit")
    up.add_argument("--loss", help="of packets on their way to a host, such as 1%%")
    up.add_argument("--duplicates", help="of packets on their way to a host, such as 1%%")
    up.add_argument("--delay", help="on the way to a host and on the way from it, such as 2ms")
    up.add_argument("--nics", type=int, default=1, help="networks, and addresses of each host")
    up.add_argument("--sshd", action="store_true", help="`ssh n1` works from every host")
    up.add_argument("--munged", action="store_true", help="a munged on every host")
    up.add_argument("--uid-users", dest="users", action="store_true", help="the users alice and bob")
    up.add_argument("--scratch", help="a directory on disk that holds the hosts' /scratch")
    return parser.parse_args(argv)


def obey(cluster: Cluster, words: list[str]) -> None:
    """Carry out one order; what is wrong with it is said on standard error."""
    if not words:
        return
    order, rest = words[0], words[1:]
    try:
        if order == "exec" and len(rest) > 1:
            code = cluster[rest[0]].popen(rest[1:]).wait()
            if code != 0:
                print(f"{rest[0]}: exit code {code}", file=sys.stderr)
        elif ORDERS.get(order) == len(rest):
            getattr(cluster, order)(rest[0], *(None if word == "off" else word for word in rest[1:]))
        else:
            print(f"tests.hosts: {shlex.join(words)!r} is no order, see --help", file=sys.stderr)
    except (HostsError, OSError) as error:
        print(f"tests.hosts: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
