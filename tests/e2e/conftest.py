"""For the tests of the whole: a place on the shared cluster's nodes, a large file, job scripts."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from cluster.layout import Layout
from support.cli import Cli, Running
from support.leaks import partial_replicas
from support.polling import until

BIG = 256 << 20
PARTLY = 16 << 20


class Spot:
    """A directory of one test on every node: `dest` as the nodes name it, `on(node)` as it really is."""

    def __init__(self, layout: Layout, nodes: tuple[str, ...]) -> None:
        self._layout = layout
        self.nodes = nodes
        self.dest = f"/scratch/{uuid.uuid4().hex[:8]}"

    def on(self, node: str, *parts: str | bytes) -> Path:
        return self._layout.root(node).joinpath(self.dest.lstrip("/"), *map(os.fsdecode, parts))

    def partial_bytes(self, node: str) -> int:
        """What the node has on disk of a transfer under way."""
        areas = map(Path, partial_replicas(self.on(node)))
        files = [path for area in areas for path in area.rglob("*")]
        return sum(path.lstat().st_blocks * 512 for path in files if path.is_file())

    def wait_for_bytes(self, node: str) -> None:
        def some() -> bool:
            try:
                return self.partial_bytes(node) > PARTLY
            except FileNotFoundError:  # it was placed meanwhile
                return False

        until(f"some bytes on {node}", some, every=0.002)

    @contextmanager
    def held(self, running: Running, node: str) -> Iterator[None]:
        """Once a node has some of the bytes, hold the mover of the command's own host for the block."""
        self.wait_for_bytes(node)
        (source,) = [p for p in psutil.Process(running.process.pid).children() if p.name() == "stage-mover"]
        source.suspend()
        try:
            yield
        finally:
            source.resume()

    def names(self, node: str) -> list[str]:
        return sorted(os.listdir(self.on(node)))


NODES = ("n1", "n2", "n3", "n4")


@pytest.fixture
def spot(cluster4: Layout, request: pytest.FixtureRequest) -> Iterator[Spot]:
    spot = Spot(cluster4, NODES)
    for node in NODES:
        spot.on(node).mkdir()
    yield spot
    left = [path for node in NODES for path in partial_replicas(spot.on(node))]
    for node in NODES:
        shutil.rmtree(spot.on(node), onerror=_open_up)
    if request.node.get_closest_marker("leaves_partial") is None:
        left = [path for path in left if not path.endswith(".lsh-looks-like-ours")]
        assert not left


def _open_up(_: object, path: str, __: object) -> None:
    os.chmod(os.path.dirname(path), stat.S_IRWXU)
    os.chmod(path, stat.S_IRWXU)
    if os.path.isdir(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


@pytest.fixture
def here(cli: Callable[[Layout], Cli], cluster4: Layout) -> Cli:
    """The commands on the shared cluster, run in the test's own directory."""
    return cli(cluster4)


@pytest.fixture(scope="session")
def big(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file that takes some seconds to copy to four nodes."""
    path = tmp_path_factory.mktemp("big") / "big"
    piece = os.urandom(1 << 20)
    with open(path, "wb") as file:
        for number in range(BIG >> 20):
            file.write(number.to_bytes(8, "big") + piece[8:])
    yield path
    path.unlink()


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """`mounted(place, *options)` mounts there until the test ends; for root only."""
    if os.geteuid() != 0:
        pytest.skip("mounts a file system")
    places: list[Path] = []

    def mount(place: Path, *options: str) -> None:
        done = subprocess.run(["mount", *options, str(place)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"may not mount: {done.stderr}")
        places.append(place)

    yield mount
    for place in reversed(places):
        subprocess.run(["umount", str(place)], check=True)


Script = Callable[..., Path]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """`script(body, *directives)` writes a job script and gives its path."""

    def write(body: str, *directives: str, interpreter: str = "/bin/bash") -> Path:
        path = tmp_path / "job.sh"
        lines = [f"#!{interpreter}", *(f"#STAGE {directive}" for directive in directives), body, ""]
        path.write_text("\n".join(lines))
        return path

    return write
