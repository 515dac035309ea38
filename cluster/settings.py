"""Dask, set up for staging: quiet, quick to notice loss, and never a word on an unauthenticated socket."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import dask

from cluster.pki import TlsFiles

if TYPE_CHECKING:
    from distributed.security import Security

WORKER_THREADS = 256  # a transfer's task waits more than it works; it secedes at once, resources bound it
STAGE_SLOTS = 256  # concurrent transfers and processes a node accepts

TUNED = {
    "distributed.worker.profile.enabled": False,  # idle cost of a worker: 2 % of a core with it
    "distributed.admin.tick.interval": "10s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.worker.daemon": False,
    "distributed.comm.timeouts.connect": "10s",
    "distributed.comm.timeouts.tcp": "12s",  # a cut link is noticed by then; Dask takes no less
    "distributed.comm.retry.count": 0,
    "distributed.scheduler.worker-ttl": "30s",
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.work-stealing": False,
    "distributed.admin.low-level-log-length": 100,
}


def apply(directory: Path) -> None:
    """Set Dask's configuration for this process, and where it may put files; before anything of distributed is made."""
    dask.config.set({**TUNED, "temporary-directory": str(directory)})
    logging.getLogger("distributed").setLevel(logging.WARNING)


def host(address: str) -> str:
    """An address as Dask takes it."""
    return f"[{address}]" if ":" in address else address


def security(files: TlsFiles) -> Security:
    """Mutual TLS for every Dask connection."""
    from distributed.security import Security

    names = {"ca_file": str(files.ca), "cert": str(files.cert), "key": str(files.key)}
    return Security(
        tls_ca_file=names["ca_file"],
        tls_client_cert=names["cert"],
        tls_client_key=names["key"],
        tls_scheduler_cert=names["cert"],
        tls_scheduler_key=names["key"],
        tls_worker_cert=names["cert"],
        tls_worker_key=names["key"],
        require_encryption=True,
    )
