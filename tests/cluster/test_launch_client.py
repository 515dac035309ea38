"""The client against a launcher played by the test, packet by packet."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from cluster.launch_client import LaunchClient, Launched
from cluster.launch_request import MAX_PACKET, LaunchRequest
from staging.mover.errors import LimitError, RefusedError, Unreachable, UsageError

TRUE = LaunchRequest(("true",), {}, "/")
STDIO = (0, 1, 2)


class Far:
    """The launcher's end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(10)

    def take(self, fds: int = 0) -> dict[str, Any]:
        packet, received, _, _ = socket.recv_fds(self.sock, MAX_PACKET, 8)
        for fd in received:
            os.close(fd)
        assert len(received) == fds
        message: dict[str, Any] = json.loads(packet)
        return message

    def tell(self, **event: Any) -> None:
        self.sock.send(json.dumps(event).encode())


@pytest.fixture
def far_and_client() -> Iterator[tuple[Far, LaunchClient]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client = LaunchClient(ours)
    with theirs:
        yield Far(theirs), client
        client.close()


@pytest.fixture
def far(far_and_client: tuple[Far, LaunchClient]) -> Far:
    return far_and_client[0]


@pytest.fixture
def client(far_and_client: tuple[Far, LaunchClient]) -> LaunchClient:
    return far_and_client[1]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(50) as executor:
        yield executor


def begin(pool: ThreadPoolExecutor, far: Far, client: LaunchClient) -> tuple[int, Launched]:
    """A launch that has started as pid 77; its id."""
    launching = pool.submit(client.launch, TRUE, "token", STDIO)
    request_id = far.take(fds=3)["id"]
    far.tell(id=request_id, event="started", pid=77)
    return request_id, launching.result(10)


def test_a_launch_carries_the_request_the_credential_and_three_descriptors(
    far: Far, client: LaunchClient, pool: ThreadPoolExecutor
) -> None:
    request = LaunchRequest(("a\udcff", "b"), {"K": "\udc80"}, "/x", "/y", 0o27, "mover")
    launching = pool.submit(client.launch, request, "token", STDIO)
    order = far.take(fds=3)
    assert order == {"id": order["id"], "op": "launch", "credential": "token", **request.to_mapping()}
    assert not launching.done()
    far.tell(id=order["id"], event="started", pid=4711)
    launched = launching.result(10)
    assert launched.pid == 4711
    far.tell(id=order["id"], event="ended", status=-15)
    assert launched.wait(10) == -15
    assert launched.wait(10) == -15


def test_a_refusal_is_raised_as_the_error_it_was(far: Far, client: LaunchClient, pool: ThreadPoolExecutor) -> None:
    launching = pool.submit(client.launch, TRUE, "token", STDIO)
    far.tell(id=far.take(fds=3)["id"], event="refused", error=RefusedError("no", "ask").to_wire())
    with pytest.raises(RefusedError, match="no; ask"):
        launching.result(10)


def test_signal_and_kill_name_the_process_they_are_for(
    far: Far, client: LaunchClient, pool: ThreadPoolExecutor
) -> None:
    request_id, launched = begin(pool, far, client)
    launched.signal(15)
    assert far.take() == {"id": request_id, "op": "signal", "signal": 15, "grace": 0}
    launched.kill()
    assert far.take() == {"id": request_id, "op": "kill"}
    with pytest.raises(UsageError, match="no signal 0"):
        launched.signal(0)


def test_a_wait_may_run_out_of_time_and_be_repeated(far: Far, client: LaunchClient, pool: ThreadPoolExecutor) -> None:
    request_id, launched = begin(pool, far, client)
    with pytest.raises(TimeoutError):
        launched.wait(0)
    far.tell(id=request_id, event="ended", status=3)
    assert launched.wait(10) == 3


def test_events_find_their_launches_from_fifty_threads(
    far: Far, client: LaunchClient, pool: ThreadPoolExecutor
) -> None:
    def launch_and_wait(number: int) -> tuple[int, int]:
        launched = client.launch(LaunchRequest((str(number),), {}, "/"), "token", STDIO)
        return launched.pid, launched.wait(10)

    results: list[Future[tuple[int, int]]] = [pool.submit(launch_and_wait, number) for number in range(50)]
    orders = [far.take(fds=3) for _ in results]
    for order in reversed(orders):
        far.tell(id=order["id"], event="started", pid=1000 + int(order["argv"][0]))
    for order in orders:
        far.tell(id=order["id"], event="ended", status=int(order["argv"][0]))
    assert [result.result(10) for result in results] == [(1000 + number, number) for number in range(50)]


def test_when_the_launcher_is_lost_everyone_hears_of_it(
    far: Far, client: LaunchClient, pool: ThreadPoolExecutor
) -> None:
    _, launched = begin(pool, far, client)
    starting = pool.submit(client.launch, TRUE, "token", STDIO)
    waiting = pool.submit(launched.wait)
    far.take(fds=3)
    far.sock.close()
    with pytest.raises(Unreachable):
        waiting.result(10)
    with pytest.raises(Unreachable):
        starting.result(10)
    with pytest.raises(Unreachable):
        client.launch(TRUE, "token", STDIO)
    with pytest.raises(Unreachable):
        launched.kill()


def test_a_packet_unread_by_a_dying_launcher_is_a_loss_like_any_other(
    far: Far, client: LaunchClient, pool: ThreadPoolExecutor
) -> None:
    _, launched = begin(pool, far, client)
    launched.kill()
    far.sock.close()
    with pytest.raises(Unreachable):
        launched.wait(10)


def test_a_request_too_large_for_a_packet_is_refused_here(far: Far, client: LaunchClient) -> None:
    with pytest.raises(LimitError, match="the limit is 131072; shorten the command line"):
        client.launch(LaunchRequest(("x" * MAX_PACKET,), {}, "/"), "token", STDIO)
    far.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        far.sock.recv(1)


def test_three_descriptors_no_more_no_less(client: LaunchClient) -> None:
    with pytest.raises(UsageError, match="not 2"):
        client.launch(TRUE, "token", (0, 1))


def test_the_answer_to_a_launch_that_was_given_up_is_ignored(
    far: Far, client: LaunchClient, pool: ThreadPoolExecutor
) -> None:
    far.tell(id=999, event="ended", status=0)
    far.tell(id=None, event="refused", error=UsageError("rubbish").to_wire())
    assert begin(pool, far, client)[1].pid == 77


def test_a_process_ends_once(far: Far, client: LaunchClient, pool: ThreadPoolExecutor) -> None:
    request_id, launched = begin(pool, far, client)
    far.tell(id=request_id, event="ended", status=1)
    far.tell(id=request_id, event="ended", status=2)
    assert begin(pool, far, client)[1].pid == 77
    assert launched.wait(0) == 1


def test_closing_ends_the_thread_and_leaves_no_descriptor() -> None:
    before = set(os.listdir("/proc/self/fd"))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client = LaunchClient(ours)
    client.close()
    assert theirs.recv(1) == b""
    theirs.close()
    assert set(os.listdir("/proc/self/fd")) == before
    assert "launch-client" not in {thread.name for thread in threading.enumerate()}
