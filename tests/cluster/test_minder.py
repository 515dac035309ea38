"""Minders over real processes.

A driver process plays the launcher. Every process of a tree inherits the tree's stdout, a pipe of the test, so that the
pipe's end comes exactly when nothing of the tree is left.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from support.polling import until

DRIVER = """
import os, select, sys
from cluster import forking, minder
def run(_):
    os.dup2(stdout, 1)
    os.close(stdout)
    forking.default_signals()
    os.execvp(sys.argv[2], sys.argv[2:])
stdout = int(sys.argv[1])
pid, control = minder.start(run, (stdout,))
os.close(stdout)
print("minder", pid, flush=True)
while True:
    ready = select.select([0, control], [], [])[0]
    if control in ready:
        packet = control.recv(64)
        if not packet:
            break
        print(packet.decode(), flush=True)
    if 0 in ready:
        order = os.read(0, 64)
        if not order:
            break
        control.send(order)
os._exit(0)
"""

# prints "ready" once a grandchild in a session of its own, whose parent has ended, is there
TREE = """
import os, signal, sys
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(writer, b"x")
        signal.pause()
    os._exit(0)
os.read(reader, 1)
print("ready", flush=True)
"""
# every process of the chain forks the next and ends at once
CHAIN = """
import os
os.write(1, b"ready\\n")
if os.fork() == 0:
    os.setsid()
    while os.fork() == 0:
        pass
    os._exit(0)
"""
# ends with 9 once it and its child have both got SIGUSR1
GROUP = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
child = os.fork()
if child == 0:
    signal.sigwait({signal.SIGUSR1})
    os._exit(9)
print("ready", flush=True)
signal.sigwait({signal.SIGUSR1})
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
WAIT = "signal.pause()"


class Driven:
    """A driver, its minder and the tree of `argv`."""

    def __init__(self, *argv: str) -> None:
        reader, writer = os.pipe()
        self.driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(writer), *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(writer,),
        )
        os.close(writer)
        self.output = os.fdopen(reader, "rb", buffering=0)
        self.minder = int(self.report("minder"))
        self.pid = int(self.report("started"))

    def report(self, word: str) -> str:
        assert self.driver.stdout
        found, value = self.driver.stdout.readline().decode().split()
        assert found == word
        return value

    def order(self, text: str) -> None:
        assert self.driver.stdin
        self.driver.stdin.write(text.encode())
        self.driver.stdin.flush()

    def wait_ready(self) -> None:
        assert self.output.readline() == b"ready\n"

    def assert_gone(self, within: float) -> None:
        """Fails unless the end of the tree's output, hence of the tree, comes within so many seconds."""
        assert select.select([self.output], [], [], within)[0], "some of the tree is left"
        assert self.output.read(1) == b""

    def close(self) -> None:
        self.driver.kill()
        self.driver.communicate()
        self.output.close()


Drive = Callable[..., Driven]


@pytest.fixture
def drive() -> Iterator[Drive]:
    started: list[Driven] = []

    def start(*argv: str) -> Driven:
        started.append(Driven(*argv))
        return started[-1]

    yield start
    for driven in started:
        driven.close()


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", -15), ("kill -SEGV $$", -11)]
)
def test_the_status_is_the_exit_code_or_minus_the_signal(drive: Drive, script: str, status: int) -> None:
    assert int(drive("sh", "-c", script).report("ended")) == status


def test_when_the_process_ends_its_daemons_are_gone_before_that_is_reported(drive: Drive) -> None:
    driven = drive(sys.executable, "-c", TREE + "sys.exit(5)")
    driven.wait_ready()
    assert driven.report("ended") == "5"
    driven.assert_gone(within=0)


def test_a_chain_of_forks_that_outruns_no_listing_is_caught(drive: Drive) -> None:
    driven = drive(sys.executable, "-c", CHAIN)
    driven.wait_ready()
    assert driven.report("ended") == "0"
    driven.assert_gone(within=0)


def test_a_minder_holds_no_descriptor_but_its_own(drive: Drive) -> None:
    driven = drive("sleep", "60")
    # the standard ones, its end of the control socket, the two ends of the pipe that wakes it
    assert len(os.listdir(f"/proc/{driven.minder}/fd")) == 6


def test_a_signal_goes_to_the_process_group(drive: Drive) -> None:
    driven = drive(sys.executable, "-c", GROUP)
    driven.wait_ready()
    driven.order(f"{int(signal.SIGUSR1)} 0")
    assert driven.report("ended") == "9"


def test_a_signal_right_after_the_start_is_not_lost(drive: Drive) -> None:
    driven = drive("sleep", "60")
    driven.order("15 0")
    assert driven.report("ended") == "-15"


# its shell ends of the TERM at once, what it had started half a second later
SAVES = "(trap 'sleep 0.5; echo saved; exit' TERM; echo ready; while :; do sleep 0.01; done) & wait"


def test_what_outlives_a_signalled_process_has_the_grace_to_end_by_itself(drive: Drive) -> None:
    driven = drive("sh", "-c", SAVES)
    driven.wait_ready()
    driven.order("15 60")
    assert driven.report("ended") == "-15"
    assert driven.output.read(100) == b"saved\n"
    driven.assert_gone(within=0)


def test_the_grace_ends(drive: Drive) -> None:
    driven = drive(sys.executable, "-c", TREE + WAIT)
    driven.wait_ready()
    driven.order("15 1")
    assert driven.report("ended") == "-15"
    driven.assert_gone(within=0)


def test_a_kill_cuts_the_grace_short(drive: Drive) -> None:
    driven = drive(sys.executable, "-c", TREE + WAIT)
    driven.wait_ready()
    driven.order("15 3600")
    until("the end of the process", lambda: not os.path.exists(f"/proc/{driven.pid}"))
    os.kill(driven.minder, signal.SIGTERM)
    assert driven.report("ended") == "-15"
    driven.assert_gone(within=0)


def test_sigterm_to_the_minder_kills_the_whole_tree(drive: Drive) -> None:
    driven = drive(sys.executable, "-c", TREE + WAIT)
    driven.wait_ready()
    os.kill(driven.minder, signal.SIGTERM)
    assert driven.report("ended") == "-9"
    driven.assert_gone(within=0)


def test_the_tree_dies_with_the_launcher(drive: Drive) -> None:
    driven = drive(sys.executable, "-c", TREE + WAIT)
    driven.wait_ready()
    driven.driver.kill()
    driven.assert_gone(within=2)


def test_an_orphan_that_ends_early_does_not_stay_a_zombie(drive: Drive) -> None:
    driven = drive("sh", "-c", "sh -c 'sleep 0 & echo $!'; sleep 60")
    orphan = int(driven.output.readline())
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{orphan}"):
        assert time.monotonic() < deadline
        time.sleep(0.005)
