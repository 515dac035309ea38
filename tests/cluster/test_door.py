"""cluster.door and cluster.line, the command's two ends of the door: what is an answer, and how they fail."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster import door, line
from cluster.layout import Layout
from staging.mover.errors import Interrupted, RefusedError, StageError, Unreachable

Ask = Callable[[Layout, dict[str, Any]], dict[str, Any]]


def ask_by_line(layout: Layout, request: dict[str, Any]) -> dict[str, Any]:
    return asyncio.run(line.ask(layout, request))


both = pytest.mark.parametrize("ask", [door.ask, ask_by_line], ids=["door", "line"])


@pytest.fixture
def layout(monkeypatch: pytest.MonkeyPatch) -> Iterator[Layout]:
    monkeypatch.delenv(door.ENV_DOOR, raising=False)
    with tempfile.TemporaryDirectory() as top:
        yield Layout(Path(top))


@contextmanager
def head(path: Path, *answers: dict[str, Any] | bytes) -> Iterator[list[dict[str, Any]]]:
    """A head for one command: takes one line, gives these answers, hangs up. Yields what it was asked."""
    asked: list[dict[str, Any]] = []

    def serve() -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rwb") as file:
            asked.append(json.loads(file.readline()))
            for answer in answers:
                file.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n")

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join()


END = {"type": "end", "x": 1}


@both
def test_the_answer_is_the_end_and_what_came_before_is_passed_over(layout: Layout, ask: Ask) -> None:
    with head(layout.head_socket, {"type": "note"}, END) as asked:
        assert ask(layout, {"op": "status", "name": "\udcff"}) == END
    assert asked == [{"op": "status", "name": "\udcff"}]


@both
def test_an_error_comes_back_as_what_it_was(layout: Layout, ask: Ask) -> None:
    error = RefusedError("not you", "be somebody else")
    with head(layout.head_socket, {"type": "error", "error": error.to_wire()}), pytest.raises(RefusedError) as caught:
        ask(layout, {"op": "status"})
    assert str(caught.value) == "not you; be somebody else"


@both
@pytest.mark.parametrize("answers", [[], [{"type": "note"}], [b'{"type": "en']])
def test_a_head_that_hangs_up_midway_is_an_interruption(layout: Layout, ask: Ask, answers: list[Any]) -> None:
    with head(layout.head_socket, *answers), pytest.raises(Interrupted, match="the head went away"):
        ask(layout, {"op": "status"})


@both
def test_where_no_head_is_the_remedy_is_to_start_one(layout: Layout, ask: Ask) -> None:
    with pytest.raises(Unreachable, match=r"no cluster is running .*; start one with `stage up --local 4`"):
        ask(layout, {"op": "status"})


@both
def test_where_a_head_was_the_remedy_is_to_start_it_again(layout: Layout, ask: Ask) -> None:
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(layout.head_socket))
    with pytest.raises(Unreachable, match=r"has ended; start it again"):
        ask(layout, {"op": "status"})


@both
@pytest.mark.skipif(os.geteuid() == 0, reason="root may connect to anything")
def test_a_door_that_is_closed_to_us_is_named(layout: Layout, ask: Ask) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(layout.head_socket))
        server.listen()
        layout.head_socket.chmod(0)
        with pytest.raises(StageError, match="Permission denied"):
            ask(layout, {"op": "status"})


@both
def test_inside_a_job_the_nodes_own_door_is_used(layout: Layout, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    own = layout.base / "door.sock"
    monkeypatch.setenv(door.ENV_DOOR, str(own))
    with head(own, END):
        assert ask(layout, {"op": "hello"}) == END


def test_a_head_that_says_nothing_is_not_waited_for(layout: Layout) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(layout.head_socket))
        server.listen()
        with pytest.raises(Unreachable, match="does not answer"):
            door.ask(layout, {"op": "status"}, timeout=0.05)


def test_events_come_as_they_are_told_and_the_end_is_kept(layout: Layout) -> None:
    with head(layout.head_socket, {"type": "a"}, {"type": "b"}, END):
        opened = door.Door(layout, {"op": "run"})
        assert [event["type"] for event in opened.events()] == ["a", "b"]
        assert opened.closing == END


def test_an_event_that_only_has_the_name_of_an_error_is_passed_on(layout: Layout) -> None:
    async def run() -> list[dict[str, Any]]:
        opened = await line.Line.open(layout, {"op": "run"})
        try:
            return [event async for event in opened]
        finally:
            await opened.close()

    with head(layout.head_socket, {"type": "error", "note": "mine"}, END):
        assert asyncio.run(run()) == [{"type": "error", "note": "mine"}]


def test_further_lines_reach_the_head(layout: Layout) -> None:
    heard: list[bytes] = []

    async def run() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.extend([await reader.readline(), await reader.readline(), await reader.readline()])
            writer.close()
            done.set()

        done = asyncio.Event()
        server = await asyncio.start_unix_server(serve, layout.head_socket)
        opened = await line.Line.open(layout, {"op": "run"})
        opened.say({"op": "stop"})
        await opened.close()
        await done.wait()
        server.close()

    asyncio.run(run())
    assert heard == [b'{"op":"run"}\n', b'{"op":"stop"}\n', b""]
