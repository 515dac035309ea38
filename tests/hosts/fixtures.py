"""The `hosts` fixture: clusters for the tests of one module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest

from tests.hosts.cluster import Cluster
from tests.hosts.needs import missing


class Hosts(Protocol):
    """`hosts(n, **settings)` makes a Cluster, or skips the test and says what is missing here.

    faults: the tests are going to lose or double packets, whether or not the cluster does so from the start.
    """

    def __call__(self, n: int, *, faults: bool = False, **settings: Any) -> Cluster: ...


def need(*, faults: bool = False, **settings: Any) -> None:
    """Skip the test unless this machine can make such a cluster."""
    faults = faults or settings.get("loss") is not None or settings.get("duplicates") is not None
    lacks = missing(faults=faults, **{name: bool(settings.get(name)) for name in ("sshd", "munged", "users")})
    if lacks:
        pytest.skip(f"a cluster of hosts needs {', '.join(lacks)}")


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Clusters that live as long as the module's tests: call it in a fixture of module scope."""
    with ExitStack() as stack:

        def make(n: int, *, faults: bool = False, **settings: Any) -> Cluster:
            need(faults=faults, **settings)
            return stack.enter_context(Cluster(n, **settings))

        yield make
