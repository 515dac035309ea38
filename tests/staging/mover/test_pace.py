"""The limit on what a host sends: the bucket on a virtual clock, and real sockets under it."""

from __future__ import annotations

import os
import socket
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from staging.mover.pace import SO_MAX_PACING_RATE, Bucket, Pacer
from support.movers import flat_manifest, transfer

sizes = st.lists(st.tuples(st.integers(1, 1 << 20), st.floats(0, 3)), min_size=1, max_size=50)


@given(rate=st.integers(1 << 14, 1 << 30), burst=st.floats(0, 1), steps=sizes)
def test_no_time_span_holds_more_than_the_rate_allows(rate: int, burst: float, steps: list[tuple[int, float]]) -> None:
    bucket = Bucket(rate, 100.0, burst)
    now = 100.0
    sent: list[tuple[float, int]] = []
    for size, pause in steps:
        now += bucket.take(size, now)
        sent.append((now, size))
        now += pause
    for first, (begin, _) in enumerate(sent):
        total = 0
        for end, size in sent[first:]:
            assert total <= rate * (end - begin + burst) * (1 + 1e-9) + 1e-3  # before these bytes
            total += size


def test_a_steady_sender_gets_the_whole_rate() -> None:
    bucket = Bucket(1000, 0.0)
    now = 0.0
    for _ in range(100):
        now += bucket.take(50, now) + 0.001  # sending takes time too: that is made good
    assert now == pytest.approx(99 * 0.05, abs=0.06)


def test_what_was_not_used_is_soon_forgotten() -> None:
    bucket = Bucket(1000, 0.0, burst=0.5)
    assert bucket.take(100, 1000.0) == 0.0
    assert bucket.take(500, 1000.0) == 0.0  # 400 left of the burst
    assert bucket.take(1, 1000.0) == pytest.approx(0.1)


@pytest.mark.parametrize("rate", [1 << 14, 1 << 20, 10 << 30])
def test_the_kernel_is_told(rate: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        before = sock.getsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE)
        Pacer(rate).smooth(sock)
        after = sock.getsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, 4)
        assert struct.unpack("I", after)[0] == (rate if rate < 1 << 32 else before & 0xFFFFFFFF)


@pytest.mark.parametrize("packed", [False, True])
def test_two_peers_together_get_no_more_than_the_rate(packed: bool) -> None:
    """Lower bounds only: a busy machine makes it slower, never faster."""
    rate, size, block = 4 << 20, 1 << 20, 1 << 16
    sizes = [1000] * (size // 1000) if packed else [size]
    manifest = flat_manifest(*sizes, block=block)
    data = os.urandom(sum(sizes))
    with transfer() as made:
        source = made.source(manifest, data, pacer=Pacer(rate))
        started = time.monotonic()
        sinks = [made.sink(f"n{number}") for number in (1, 2)]
        for sink in sinks:
            sink.fetch(manifest, [source.peer])
        assert [sink.wait().content() for sink in sinks] == [data, data]
        assert time.monotonic() - started > 2 * len(data) / rate - 0.1
