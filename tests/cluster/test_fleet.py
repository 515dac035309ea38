"""cluster.fleet: which nodes there are, and how a task on one of them ends, over a pretended scheduler."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.fleet import EVENT_OP, Fleet, Node, Secret, printable_key
from staging.mover.errors import SpaceError, StageError, Unreachable, UsageError


class FakeScheduler:
    def __init__(self) -> None:
        self.workers: dict[str, Any] = {}
        self.stream_handlers: dict[str, Any] = {}
        self.plugins: list[Any] = []
        self.orders: list[tuple[dict[str, Any], list[str]]] = []

    def add_plugin(self, plugin: Any) -> None:
        self.plugins.append(plugin)

    def join(self, name: str, worker: str = "", **extra: Any) -> None:
        worker = worker or f"tls://{name}"
        stage = {"address": f"10.0.0.{name[1:]}", "root": "", "pid": 7, **extra}
        self.workers[worker] = SimpleNamespace(name=name, address=worker, extra={"stage": stage})

    def lose(self, worker: str) -> None:
        del self.workers[worker]
        for plugin in self.plugins:
            plugin.remove_worker(self, worker, stimulus_id="x")

    async def broadcast(self, *, msg: dict[str, Any], workers: list[str], on_error: str) -> None:
        assert on_error == "ignore"
        self.orders.append((msg, workers))


class FakeClient:
    """Its futures end when the test says so."""

    def __init__(self) -> None:
        self.submitted: list[dict[str, Any]] = []
        self.futures: list[FakeFuture] = []
        self.busy = asyncio.Event()

    def submit(self, function: Any, *args: Any, **options: Any) -> FakeFuture:
        self.submitted.append({"function": function, "args": args, **options})
        self.futures.append(FakeFuture())
        self.busy.set()
        return self.futures[-1]


class FakeFuture:
    def __init__(self) -> None:
        self.outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.released = False

    async def result(self) -> Any:
        return await self.outcome

    def release(self) -> None:
        self.released = True


class World:
    def __init__(self) -> None:
        self.scheduler = FakeScheduler()
        self.client = FakeClient()
        self.fleet = Fleet(self.scheduler, self.client)  # type: ignore[arg-type]

    async def called(self, name: str = "n1") -> asyncio.Task[Any]:
        """A call that has been handed to Dask."""
        call = asyncio.create_task(self.fleet.call(self.fleet.nodes()[name], "label", work, 1))
        await self.client.busy.wait()
        self.client.busy.clear()
        return call


def work(number: int) -> int:
    return number


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 10))


def test_nodes_are_those_that_ever_joined_in_the_order_of_their_numbers() -> None:
    async def test() -> None:
        world = World()
        for name in ("n10", "n2", "n1"):
            world.scheduler.join(name)
        world.scheduler.workers["tls://client"] = SimpleNamespace(name="other", address="tls://client", extra={})
        assert list(world.fleet.nodes()) == ["n1", "n2", "n10"]
        world.scheduler.lose("tls://n2")
        assert [n.name for n in world.fleet.up()] == ["n1", "n10"]
        down = world.fleet.nodes()["n2"]
        assert (down.up, down.address) == (False, "10.0.0.2")
        world.scheduler.join("n2", worker="tls://again", pid=8)
        assert world.fleet.nodes()["n2"] == Node("n2", "10.0.0.2", "", 8, "tls://again", True)

    run(test())


def test_known_keeps_the_order_asked_for_and_names_who_is_not_there() -> None:
    async def test() -> None:
        world = World()
        with pytest.raises(UsageError, match="there is no node n1; the nodes are none yet"):
            world.fleet.known(["n1"])
        for name in ("n1", "n2", "n3"):
            world.scheduler.join(name)
        assert [n.name for n in world.fleet.known(["n3", "n1"])] == ["n3", "n1"]
        with pytest.raises(UsageError, match=r"there is no node n9; the nodes are n\[1-3\]"):
            world.fleet.known(["n1", "n9"])

    run(test())


def test_who_waits_for_nodes_is_woken_when_one_joins() -> None:
    async def test() -> None:
        world = World()

        async def wait() -> None:
            async with world.fleet.changed:
                await world.fleet.changed.wait_for(lambda: len(world.fleet.up()) >= 1)

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        world.scheduler.join("n1")
        await world.fleet.add_worker(world.scheduler, "tls://n1")  # type: ignore[arg-type]
        await waiting

    run(test())


def test_a_call_is_a_task_pinned_to_the_node_with_a_readable_key_of_its_own() -> None:
    async def test() -> None:
        world = World()
        world.scheduler.join("n1")
        for number in (1, 2):
            call = await world.called()
            world.client.futures.pop().outcome.set_result("value")
            assert await call == "value"
            sent = world.client.submitted[-1]
            assert sent["key"] == ("stage-work", "label", "n1", number)
            assert (sent["workers"], sent["allow_other_workers"], sent["retries"]) == (["tls://n1"], False, 0)
            assert (sent["function"], sent["args"], sent["pure"]) == (work, (1,), False)

    run(test())


def test_a_call_ends_when_its_node_is_lost() -> None:
    async def test() -> None:
        world = World()
        world.scheduler.join("n1")
        world.scheduler.join("n2")
        call = await world.called()
        world.scheduler.lose("tls://n2")
        await asyncio.sleep(0)
        assert not call.done()
        world.scheduler.lose("tls://n1")
        with pytest.raises(Unreachable, match=r"n1 \(10.0.0.1\) was lost"):
            await call
        assert world.client.futures[0].released

    run(test())


def test_a_call_to_a_node_that_is_gone_starts_nothing() -> None:
    async def test() -> None:
        world = World()
        world.scheduler.join("n1")
        node = world.fleet.nodes()["n1"]
        world.scheduler.lose("tls://n1")
        with pytest.raises(Unreachable, match="is gone"):
            await world.fleet.call(node, "label", work, 1)
        assert world.client.submitted == []

    run(test())


@pytest.mark.parametrize(
    ("raised", "expected", "text"),
    [
        (SpaceError("full"), SpaceError, "full"),
        (ZeroDivisionError("by zero"), StageError, r"n1 \(10.0.0.1\): ZeroDivisionError: by zero"),
    ],
)
def test_what_a_task_raises_is_an_error_of_ours(raised: Exception, expected: type[StageError], text: str) -> None:
    async def test() -> None:
        world = World()
        world.scheduler.join("n1")
        call = await world.called()
        world.client.futures[0].outcome.set_exception(raised)
        with pytest.raises(expected, match=text):
            await call
        assert world.client.futures[0].released

    run(test())


def test_a_cancelled_call_lets_its_task_go() -> None:
    async def test() -> None:
        world = World()
        world.scheduler.join("n1")
        call = await world.called()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert world.client.futures[0].released
        world.scheduler.lose("tls://n1")  # finds nobody who still waits

    run(test())


def test_orders_go_to_the_nodes_worker_and_nowhere_once_it_is_gone() -> None:
    async def test() -> None:
        world = World()
        world.scheduler.join("n1")
        node = world.fleet.nodes()["n1"]
        await world.fleet.control(node, "target", {"op": "finish"})
        world.scheduler.lose("tls://n1")
        await world.fleet.control(node, "target", {"op": "abort"})
        message = {"op": "stage_control", "target": "target", "order": '{"op": "finish"}'}
        assert world.scheduler.orders == [(message, ["tls://n1"])]

    run(test())


def test_events_go_to_who_listens() -> None:
    async def test() -> None:
        world = World()
        heard: list[tuple[str, dict[str, Any]]] = []
        send = world.scheduler.stream_handlers[EVENT_OP]
        world.fleet.listen("t", lambda node, event: heard.append((node, event)))
        send(worker="tls://n1", node="n1", target="t", event='{"event": "a"}', other="ignored")
        send(worker="tls://n1", node="n1", target="another", event='{"event": "b"}')
        world.fleet.unlisten("t")
        send(worker="tls://n1", node="n1", target="t", event='{"event": "c"}')
        assert heard == [("n1", {"event": "a"})]

    run(test())


def test_names_that_are_not_utf8_stay_out_of_keys() -> None:
    assert printable_key("a b") == "a b"
    assert printable_key("\udcff\u00e9") == "\\udcff\\xe9"


def test_a_secret_travels_but_never_shows() -> None:
    secret = Secret("hunter2")
    assert pickle.loads(pickle.dumps(secret)).value == "hunter2"
    assert "hunter2" not in f"{secret!r} {secret} {[secret]}"
