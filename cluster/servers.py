"""Dask's scheduler and worker without their HTTP servers, which answer anybody who can reach the port."""

from __future__ import annotations

from typing import Any

from distributed import Scheduler, Worker


class _NoHttp:
    def start_http_server(self, *args: Any, **kwargs: Any) -> None:
        """Dask starts one even with dashboard=False; nothing of ours listens without authentication."""


class StagingScheduler(_NoHttp, Scheduler):
    pass


class StagingWorker(_NoHttp, Worker):
    pass
