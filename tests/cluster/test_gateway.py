"""cluster.gateway: who is let in, what rubbish gets, and that a request ends with the command that made it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import pki
from cluster.gateway import Call, Gateway
from staging.mover.errors import PartialError
from support.strangers import throw

NOBODY = 65534
RUBBISH = [
    b"\n",
    b"{}\n",
    b"[]\n",
    b"null\n",
    b'{"op": "nonesuch"}\n',
    b'{"op": {}}\n',
    b'{"op": []}\n',
    b"\xff\xfe\n",
    b"[" * 100_000 + b"\n",
    b'{"op": "echo"',
    b"GET / HTTP/1.1\r\n\r\n",
]


class Running:
    """A gateway with some handlers, at a unix socket and at a TLS port."""

    def __init__(self, gateway: Gateway, path: Path, port: int, files: pki.TlsFiles) -> None:
        self.gateway = gateway
        self.path = path
        self.port = port
        self.files = files
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.after = asyncio.Event()

    async def local(self, *lines: bytes) -> dict[str, Any]:
        """What a command that says these lines is told last."""
        return await converse(await asyncio.open_unix_connection(self.path), *lines)

    async def tls(self, *lines: bytes, context: ssl.SSLContext | None = None) -> dict[str, Any]:
        context = context or pki.client_context(self.files)
        return await converse(await asyncio.open_connection("127.0.0.1", self.port, ssl=context), *lines)


async def converse(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], *lines: bytes) -> dict[str, Any]:
    reader, writer = streams
    try:
        writer.writelines(lines)
        if not lines[-1].endswith(b"\n"):
            writer.write_eof()
        told = (await reader.read()).splitlines()
        return json.loads(told[-1]) if told else {}
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o711)
        pki.ensure(Path(top) / "keys", now=datetime.datetime.now(datetime.UTC))
        yield Path(top)


@asynccontextmanager
async def serving(place: Path) -> AsyncIterator[Running]:
    files = pki.ensure(place / "keys", now=datetime.datetime.now(datetime.UTC))
    gateway = Gateway()
    await gateway.listen_unix(place / "door")
    port = await gateway.listen_tls("127.0.0.1", pki.server_context(files))
    running = Running(gateway, place / "door", port, files)

    async def echo(call: Call) -> dict[str, Any]:
        call.tell({"type": "said", "line": await call.receive()})
        return {"uid": call.caller.uid, "node": call.caller.node}

    async def wait(call: Call) -> None:
        running.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            running.cancelled.set()
            raise

    async def fail(call: Call) -> None:
        kind = {"stage": PartialError("some failed", "look"), "value": ValueError("x"), "os": OSError(2, "gone")}
        raise kind.get(call.request["kind"], RuntimeError("a mistake of ours"))

    async def bye(call: Call) -> dict[str, Any]:
        call.afterwards.append(running.after.set)
        return {"said": "bye"}

    for handler in (echo, wait, fail, bye):
        gateway.register(handler.__name__, handler)
    try:
        yield running
    finally:
        await gateway.close()


def with_gateway(place: Path, test: Callable[[Running], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(20), serving(place) as running:
            await test(running)
            assert (await running.local(b'{"op": "bye"}\n'))["said"] == "bye"  # whatever came before

    asyncio.run(run())


def line(**message: Any) -> bytes:
    return json.dumps(message).encode() + b"\n"


def test_a_request_is_answered_by_events_and_an_end(place: Path) -> None:
    async def test(running: Running) -> None:
        reader, writer = await asyncio.open_unix_connection(running.path)
        writer.write(line(op="echo") + line(x=1))
        said, end = (await reader.read()).splitlines()
        writer.close()
        assert json.loads(said) == {"type": "said", "line": {"x": 1}}
        assert json.loads(end) == {"type": "end", "uid": os.geteuid(), "node": ""}

    with_gateway(place, test)


def test_a_node_names_the_caller_whose_connection_it_passes_on(place: Path) -> None:
    async def test(running: Running) -> None:
        caller = line(uid=os.geteuid(), gid=os.getegid(), node="n2")
        assert await running.tls(caller, line(op="echo"), line()) == {"type": "end", "uid": os.geteuid(), "node": "n2"}

    with_gateway(place, test)


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_rubbish_is_answered_by_a_usage_error_and_harms_nobody(place: Path, rubbish: bytes) -> None:
    async def test(running: Running) -> None:
        answer = await running.local(rubbish)
        assert (answer["type"], answer["error"]["class"]) == ("error", "UsageError")

    with_gateway(place, test)


def test_a_further_line_that_is_rubbish_is_a_usage_error(place: Path) -> None:
    async def test(running: Running) -> None:
        for rubbish in (b"{\n", b"[]\n", b"\xff\n", b"[" * 100_000 + b"\n"):
            assert (await running.local(line(op="echo"), rubbish))["error"]["class"] == "UsageError"

    with_gateway(place, test)


scalars = st.none() | st.integers() | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(requests=st.lists(values | st.fixed_dictionaries({"op": values}), min_size=5, max_size=5))
@settings(max_examples=20)
def test_any_json_as_a_request_gets_an_answer(place: Path, requests: list[Any]) -> None:
    async def test(running: Running) -> None:
        for request in requests:
            assert (await running.local(json.dumps(request).encode() + b"\n"))["type"] == "error"

    with_gateway(place, test)


def test_a_megabyte_of_random_bytes_on_the_unix_socket(place: Path) -> None:
    async def test(running: Running) -> None:
        await asyncio.to_thread(throw, socket.AF_UNIX, str(running.path))

    with_gateway(place, test)


def test_a_megabyte_of_random_bytes_on_the_tls_port(place: Path) -> None:
    async def test(running: Running) -> None:
        await asyncio.to_thread(throw, socket.AF_INET, ("127.0.0.1", running.port))

    with_gateway(place, test)


def no_certificate(_: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def another_clusters_certificate(top: Path) -> ssl.SSLContext:
    context = pki.client_context(pki.ensure(top / "keys", now=datetime.datetime.now(datetime.UTC)))
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize("make", [no_certificate, another_clusters_certificate])
def test_without_a_certificate_of_the_cluster_nobody_is_heard(
    place: Path, tmp_path: Path, make: Callable[[Path], ssl.SSLContext]
) -> None:
    tmp_path.chmod(0o700)

    async def test(running: Running) -> None:
        told: dict[str, Any] = {}
        with contextlib.suppress(ssl.SSLError, ConnectionError):  # in TLS 1.3 the refusal may come with the end only
            told = await running.tls(line(uid=os.geteuid(), gid=0), line(op="bye"), context=make(tmp_path))
        assert told == {}
        assert not running.after.is_set()

    with_gateway(place, test)


def test_another_user_is_refused_by_name_of_a_node(place: Path) -> None:
    async def test(running: Running) -> None:
        answer = await running.tls(line(uid=os.geteuid() + 1, gid=0, node="n1"), line(op="bye"))
        assert answer["error"]["class"] == "RefusedError"
        assert not running.after.is_set()

    with_gateway(place, test)


@pytest.mark.parametrize("caller", [b"{}\n", b"[1, 2]\n", b'{"uid": 0, "gid": 0, "shoe": 44}\n', b"\n"])
def test_a_caller_that_makes_no_sense_is_a_usage_error(place: Path, caller: bytes) -> None:
    async def test(running: Running) -> None:
        assert (await running.tls(caller, line(op="bye")))["error"]["class"] == "UsageError"
        assert not running.after.is_set()

    with_gateway(place, test)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_the_kernel_names_another_user_even_where_the_socket_lets_everybody_in(place: Path) -> None:
    ask = (
        f"import os, socket, sys; os.setuid({NOBODY}); s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
        """s.sendall(b'{"op": "bye"}\\n'); print(s.makefile().read())"""
    )

    async def test(running: Running) -> None:
        argv = [sys.executable, "-c", ask, str(running.path)]
        closed = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True)
        assert "PermissionError" in closed.stderr
        running.path.chmod(0o666)
        told = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True)
        assert json.loads(told.stdout)["error"]["class"] == "RefusedError"
        assert not running.after.is_set()

    with_gateway(place, test)


def leave_locally(running: Running) -> Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    return asyncio.open_unix_connection(running.path)


def leave_a_node(running: Running) -> Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    return asyncio.open_connection("127.0.0.1", running.port, ssl=pki.client_context(running.files))


@pytest.mark.parametrize(
    ("connect", "first"), [(leave_locally, b""), (leave_a_node, line(uid=os.geteuid(), gid=0, node="n1"))]
)
def test_a_handler_is_cancelled_when_its_command_goes_away(place: Path, connect: Any, first: bytes) -> None:
    async def test(running: Running) -> None:
        _, writer = await connect(running)
        writer.write(first + line(op="wait"))
        await running.started.wait()
        assert not running.cancelled.is_set()
        writer.close()
        await running.cancelled.wait()

    with_gateway(place, test)


def test_a_handler_is_cancelled_when_the_gateway_closes(place: Path) -> None:
    async def run() -> None:
        async with asyncio.timeout(20), serving(place) as running:
            reader, writer = await asyncio.open_unix_connection(running.path)
            writer.write(line(op="wait"))
            await running.started.wait()
            await running.gateway.close()
            assert running.cancelled.is_set()
            assert await reader.read() == b""
            writer.close()

    asyncio.run(run())


def test_what_is_to_happen_afterwards_happens_when_the_answer_has_been_sent(place: Path) -> None:
    async def run() -> None:
        async with asyncio.timeout(20), serving(place) as running:
            reader, writer = await asyncio.open_unix_connection(running.path)
            writer.write(line(op="bye"))
            await running.after.wait()
            await running.gateway.close()  # as `down` does
            assert json.loads(await reader.read()) == {"type": "end", "said": "bye"}
            writer.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("stage", {"class": "PartialError", "message": "some failed", "remedy": "look"}),
        ("value", {"class": "UsageError", "message": "a request that cannot be read: ValueError('x')", "remedy": ""}),
        ("os", {"class": "StageError", "message": "cannot continue: gone", "remedy": ""}),
        ("ours", {"class": "StageError", "message": "internal error: RuntimeError: a mistake of ours", "remedy": ""}),
    ],
)
def test_what_a_handler_raises_is_told(
    place: Path, kind: str, error: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    async def test(running: Running) -> None:
        assert await running.local(line(op="fail", kind=kind)) == {"type": "error", "error": error}

    with_gateway(place, test)
    assert bool(caplog.records) == (kind == "ours")  # our own mistakes are logged with where they are


def test_who_says_nothing_is_hung_up_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.gateway.FIRST_LINE_SECONDS", 0.05)

    async def test(running: Running) -> None:
        reader, writer = await asyncio.open_unix_connection(running.path)
        assert b"UsageError" in await reader.read()
        writer.close()

    with_gateway(place, test)
