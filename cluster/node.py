"""The node service: it starts the launcher and the Dask worker of one node and ends when either of them does.

    python -m cluster.node --dir DIR --name n1 --address 127.0.0.2 [--root DIR/nodes/n1/root] [--ready FD] [--remove]

`--ready`: gets the line "up" once the node has joined, and is closed without one when it could not. `--remove`:
DIR is this node's alone and goes with it, and the head hears when it has gone. Whoever started the service decides what
happens after its end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

from cluster import attendance, launcher
from cluster.credentials import Authority
from cluster.forking import die_with
from cluster.layout import Layout
from cluster.startup import NodeSpec
from staging.mover.errors import StageError
from staging.mover.title import name_process

GRACE_SECONDS = 5


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cluster.node")
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--root", default="")
    parser.add_argument("--ready", type=int)
    parser.add_argument("--remove", action="store_true")
    args = parser.parse_args(argv)
    layout = Layout(args.dir)
    if not args.remove:
        return _serve(layout, args, None)
    # connected by the worker, but open here until this process ends, so that the head sees when nothing is left
    presence = attendance.unconnected(layout.read_head())
    try:
        return _serve(layout, args, presence)
    finally:
        layout.remove_all()


def _serve(layout: Layout, args: argparse.Namespace, presence: socket.socket | None) -> int:
    public_key = Authority.public_key_path(layout.keys)
    # the launcher first: nothing of this process but a few imports is in it
    launcher_pid, channel = launcher.start(args.name, public_key)
    service_pid = os.getpid()
    name_process("stage-node")
    worker_pid = os.fork()
    if worker_pid == 0:
        status = 1
        try:
            die_with(service_pid, signal.SIGTERM)
            name_process("stage-worker")
            from cluster import worker

            service = worker.Service(service_pid, channel, args.ready, presence)
            asyncio.run(worker.run(layout, NodeSpec(args.name, args.address, args.root), service))
            status = 0
        except TimeoutError:
            _say(f"stage node {args.name}: no head appeared in {args.dir}")
        except (OSError, StageError) as error:
            _say(f"stage node {args.name}: {error}")
        except Exception:
            _say(f"stage node {args.name}: {traceback.format_exc()}")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    channel.close()
    if args.ready is not None:
        os.close(args.ready)
    return watch({launcher_pid, worker_pid})


def watch(children: set[int]) -> int:
    """Wait for the first child to end, then end the other; 0 when asked to stop by SIGTERM."""
    asked = False

    def on_term(*_: object) -> None:
        nonlocal asked
        asked = True
        send(signal.SIGTERM)

    def send(number: signal.Signals) -> None:
        for pid in children:
            with contextlib.suppress(ProcessLookupError):  # reaped just now
                os.kill(pid, number)

    signal.signal(signal.SIGTERM, on_term)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    first = True
    while children:
        pid, _ = os.wait()
        children.discard(pid)
        if first:
            first = False
            send(signal.SIGTERM)
            signal.signal(signal.SIGALRM, lambda *_: send(signal.SIGKILL))
            signal.alarm(GRACE_SECONDS)
    return 0 if asked else 1


def _say(line: str) -> None:
    stamp = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    print(f"{stamp} {line}", file=sys.stderr)  # noqa: T201 - this is its log


if __name__ == "__main__":
    sys.exit(main())
