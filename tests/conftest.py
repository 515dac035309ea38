"""For all tests: a private place for temporary files, the leak check, the shared cluster, the commands."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from cluster.layout import Layout, personal
from support import leaks
from support.cli import Cli
from support.clusters import embedded_cluster
from tests.hosts.fixtures import hosts

__all__ = ["hosts"]

settings.register_profile("everyday", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "everyday")

_private = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Give the run a temporary directory of its own, short because socket paths are, and a mark on its processes."""
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # tmp_path stays where it always is
    private = config.stash[_private] = tempfile.mkdtemp(prefix="lsh", dir="/tmp")
    os.chmod(private, 0o711)  # launched processes of other users pass through it
    os.environ["TMPDIR"] = tempfile.tempdir = private
    os.environ[leaks.MARK] = uuid.uuid4().hex
    for name in [name for name in os.environ if name.startswith("STAGE_")]:
        del os.environ[name]


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_private], ignore_errors=True)
    tempfile.tempdir = None


@pytest.fixture(scope="session")
def watched() -> leaks.Watched:
    """The places in which a test may leave nothing."""
    return leaks.Watched([Path(tempfile.gettempdir()), personal()], [])


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest, watched: leaks.Watched) -> Iterator[None]:
    """Fail a test that leaves a process, a thread, a socket, a port or a temporary file behind."""
    partials = request.node.get_closest_marker("leaves_partial") is None
    before = leaks.snapshot(watched, partials)
    yield
    own = request.node.funcargs.get("tmp_path")

    def now() -> leaks.Snapshot:
        trees = [*watched.trees, *([own] if own is not None else [])]
        return leaks.snapshot(leaks.Watched(watched.tops, trees), partials)

    left = leaks.settle(before, now)
    if left:
        pytest.fail("the test left behind:\n" + "\n".join(left), pytrace=False)


@pytest.fixture(scope="session")
def cluster4(watched: leaks.Watched) -> Iterator[Layout]:
    """An embedded cluster of four nodes for all tests that do not break it."""
    with embedded_cluster(4, watched) as layout:
        yield layout


@pytest.fixture
def cli(tmp_path: Path) -> Callable[[Layout | None], Cli]:
    """`cli(layout)` runs commands on that cluster, from the test's own directory; None: on the user's default one."""
    return lambda layout: Cli(layout, tmp_path)
