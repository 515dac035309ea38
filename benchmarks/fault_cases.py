"""The faults of benchmarks.faults: what is done to a copy while it runs, and what shall come of it."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rig import OUT, STAGE, Pcp, Rig, stage_up
from tests.hosts import Host

VICTIM = "n4"
FLIPPING = Path(__file__).with_name("flipping")
OTHERS_ONLY = frozenset((VICTIM,))
HEALED_AFTER = 5.0
FROZEN_FOR = 5.0
BACK_SECONDS = 60.0


@dataclass(frozen=True)
class Fault:
    """One fault at one node, when that node has a third of the file, and what is promised.

    strike: does it. repair: what the administrator does before the same command is given again.
    code: the exit code. fail: the nodes that may fail, and then with a line of their own; the others have the file.
    says: what a note or a failure must hold. seconds: how long the command may take beyond a quiet copy.
    nodes: only this fault's copies need them so. prepare: done before the copy. size: MiB, unless the usual one.
    """

    name: str
    done: str
    strike: Callable[[Rig, Pcp], None]
    code: int = 0
    fail: frozenset[str] = frozenset()
    says: str = ""
    seconds: float = 10.0
    repair: Callable[[Rig], None] | None = None
    prepare: Callable[[Rig], None] | None = None
    python: str = ""  # of the victim's node service
    at: float = 1 / 3  # of the file at the victim when the fault strikes
    size: int = 0


def processes(host: Host, *names: str) -> list[int]:
    """Pids, as the host counts them, of its processes with one of these names; none given: all but its init."""
    found = []
    for path in host.path("/proc").glob("[0-9]*/comm"):
        try:
            name = path.read_text().strip()
        except OSError:  # it has just ended
            continue
        pid = int(path.parent.name)
        if pid != 1 and (not names or name in names):
            found.append(pid)
    return found


def send(host: Host, signum: int, *names: str) -> None:
    pids = processes(host, *names)
    if not pids:
        raise RuntimeError(f"no {' or '.join(names)} runs on {host.name}")
    host.run(["sh", "-c", f"kill -{signum} {' '.join(map(str, pids))}"])


def power_off(rig: Rig, pcp: Pcp) -> None:
    rig.cluster.cut(VICTIM)  # first, so that no dying process says a word
    rig.cluster.crash(VICTIM)


def boot(rig: Rig) -> None:
    """The victim has power again, and its service runs."""
    host = rig.cluster[VICTIM]
    rig.cluster.heal(VICTIM)
    rig.cluster.boot(VICTIM)
    deadline = time.monotonic() + BACK_SECONDS
    while not processes(host, "stage-worker"):  # the head may take the old one for alive, and then starts none
        if time.monotonic() > deadline:
            raise RuntimeError(f"the service on {VICTIM} was not started")
        stage_up(rig.cluster, [host])


def power_cycle(rig: Rig, pcp: Pcp) -> None:
    power_off(rig, pcp)
    boot(rig)


def boot_to_work(rig: Rig) -> None:
    boot(rig)
    service_again(rig)


def kill(*names: str) -> Callable[[Rig, Pcp], None]:
    return lambda rig, pcp: send(rig.cluster[VICTIM], signal.SIGKILL, *names)


def cut_and_heal(rig: Rig, pcp: Pcp) -> None:
    rig.cluster.cut(VICTIM)
    time.sleep(HEALED_AFTER)
    rig.cluster.heal(VICTIM)


def cut(rig: Rig, pcp: Pcp) -> None:
    rig.cluster.cut(VICTIM)


def heal(rig: Rig) -> None:
    rig.cluster.heal(VICTIM)
    service_again(rig)


def service_again(rig: Rig) -> None:
    """Start the victim's node service again, until the victim takes copies."""
    deadline = time.monotonic() + BACK_SECONDS
    probe = ["pcp", "-q", "--cluster", STAGE, "/etc/hostname", "/tmp/probe", VICTIM]
    stage_up(rig.cluster, [rig.cluster[VICTIM]])
    while rig.head.run(probe, check=False).returncode != 0:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{VICTIM} takes no copies")
        stage_up(rig.cluster, [rig.cluster[VICTIM]])


def slow(rig: Rig, pcp: Pcp) -> None:
    assert rig.rate_mbit is not None
    rig.cluster.rate(VICTIM, None)  # what a fast link has queued does not fit through a slow one
    rig.cluster.rate(VICTIM, f"{rig.rate_mbit / 10:g}mbit")


def lossy(rig: Rig, pcp: Pcp) -> None:
    rig.cluster.loss(VICTIM, "1%")


def small_disk(rig: Rig) -> None:
    rig.cluster.disk(VICTIM, OUT, "256m")


def fill_disk(rig: Rig, pcp: Pcp) -> None:
    script = f"dd if=/dev/zero of={OUT}/filler bs=1M 2>/dev/null || true"
    rig.cluster[VICTIM].run(["sh", "-c", script])


def make_room(rig: Rig) -> None:
    rig.cluster[VICTIM].path(f"{OUT}/filler").unlink()


def kill_head(rig: Rig, pcp: Pcp) -> None:
    send(rig.head, signal.SIGKILL, "stage-head")


def all_again(rig: Rig) -> None:
    stage_up(rig.cluster, rig.cluster.nodes)


def interrupt(signum: int) -> Callable[[Rig, Pcp], None]:
    return lambda rig, pcp: pcp.process.send_signal(signum)


def flipping_python(rig: Rig) -> None:
    wrapper = rig.cluster[VICTIM].path("/run/flipping")
    path = f"{FLIPPING}{os.pathsep}$PYTHONPATH"
    wrapper.write_text(f'#!/bin/sh\nPYTHONPATH="{path}" exec {shlex.quote(sys.executable)} "$@"\n')
    wrapper.chmod(0o755)


def nothing(rig: Rig, pcp: Pcp) -> None:
    """The fault was there before."""


def freeze(rig: Rig, pcp: Pcp) -> None:
    host = rig.cluster[VICTIM]
    send(host, signal.SIGSTOP)
    time.sleep(FROZEN_FOR)
    send(host, signal.SIGCONT)


SERVICE = ("stage-node", "stage-worker", "stage-launcher")
EVERYBODY = frozenset(f"n{number}" for number in range(1, 9))

FAULTS = (
    Fault(
        "node loses power", "link and all processes gone at once", power_off, 3, OTHERS_ONLY, VICTIM, 20, boot_to_work
    ),
    Fault("mover killed", "kill -9 of its mover", kill("stage-mover"), 3, OTHERS_ONLY, VICTIM),
    Fault("node service killed", "kill -9 of its service", kill(*SERVICE), 3, OTHERS_ONLY, VICTIM, 10, service_again),
    Fault("link cut, healed after 5 s", "packets dropped both ways for 5 s", cut_and_heal, seconds=15),
    Fault("link cut for good", "packets dropped both ways", cut, 3, OTHERS_ONLY, VICTIM, 20, heal),
    Fault("node boots again in time", "power off and on, service started", power_cycle, seconds=30, at=0.1, size=384),
    Fault("slow node", "its link gets a tenth of the rate", slow, says="slow", seconds=60, repair=None),
    Fault("lossy link", "1 % of the packets to it are lost", lossy, seconds=60),
    Fault(
        "disk full",
        "another file takes the room",
        fill_disk,
        3,
        OTHERS_ONLY,
        "space",
        repair=make_room,
        prepare=small_disk,
    ),
    Fault("head killed", "kill -9 of the head", kill_head, 5, EVERYBODY, "head", repair=all_again),
    Fault("^C", "SIGINT to the command", interrupt(signal.SIGINT), 130, EVERYBODY),
    Fault("command killed", "kill -9 of the command", interrupt(signal.SIGKILL), -signal.SIGKILL, EVERYBODY),
    Fault(
        "relay flips bits",
        "a mover that damages what it serves",
        nothing,
        says=f"{VICTIM} sent a block that failed its MAC",
        prepare=flipping_python,
        python="/run/flipping",
    ),
    Fault("node frozen", "SIGSTOP to all on it, SIGCONT after 5 s", freeze, seconds=20),
)
