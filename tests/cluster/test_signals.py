"""cluster.signals: signals that come at a bad moment come later."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from cluster.signals import Terminated, deferred, terminating


def test_a_signal_is_held_back_until_the_block_has_ended() -> None:
    done: list[int] = []

    def hold_back(number: signal.Signals) -> None:
        with deferred():
            os.kill(os.getpid(), number)
            done.append(number)

    with terminating():
        with pytest.raises(Terminated):
            hold_back(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            hold_back(signal.SIGINT)
    assert done == [signal.SIGTERM, signal.SIGINT]


def test_what_is_started_meanwhile_does_not_hold_signals_back() -> None:
    with deferred():
        process = subprocess.Popen(["sleep", "60"])
        process.terminate()
        assert process.wait() == -signal.SIGTERM


def test_a_signal_that_is_ignored_stays_so() -> None:
    saved = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminating(), deferred():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, saved)
