"""A cluster of hosts in namespaces of this machine, for tests and benchmarks.

with Cluster(8, rate="200mbit", sshd=True) as cluster:
    cluster.head.run(["ssh", "n1", "hostname"])
    cluster.cut("n3")
"""

from __future__ import annotations

from tests.hosts.cluster import Cluster
from tests.hosts.host import Host
from tests.hosts.network import HostsError

__all__ = ["Cluster", "Host", "HostsError"]
