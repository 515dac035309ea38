"""The project's commands as real subprocesses on a given cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.layout import ENV_CLUSTER, Layout

MODULES = {"stage": "scheduler_hooks.stage", "pcp": "staging.pcp"}
SECONDS = 60.0

Word = str | bytes | Path


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str
    seconds: float

    def events(self) -> list[dict[str, Any]]:
        """The lines of --json."""
        return [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]

    def of_type(self, *types: str) -> list[dict[str, Any]]:
        return [event for event in self.events() if event["type"] in types]

    def per_node(self, kind: str) -> dict[str, dict[str, Any]]:
        """The events of one type, by node."""
        return {event["node"]: event for event in self.of_type(kind)}


class Running:
    """A command that has been started. `wait` gives its end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._started = time.monotonic()
        self._read: list[str] = []

    def elapsed(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self._started

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def lines_until(self, wanted: Callable[[str], bool]) -> None:
        """Read its output up to the first line that is `wanted`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._read.append(line)
            if wanted(line):
                return
        raise AssertionError(f"it ended without the awaited line: {self._read}")

    def wait(self, seconds: float = SECONDS) -> Done:
        out, err = self.process.communicate(timeout=seconds)
        return Done(self.process.returncode, "".join(self._read) + (out or ""), err, self.elapsed())


class Cli:
    def __init__(self, layout: Layout | None, cwd: Path) -> None:
        self._layout = layout
        self._cwd = cwd

    def stage(self, *words: Word, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Done:
        return self._run("stage", words, cwd, env)

    def pcp(self, *words: Word, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Done:
        return self._run("pcp", words, cwd, env)

    def _run(self, name: str, words: tuple[Word, ...], cwd: Path | None, env: Mapping[str, str] | None) -> Done:
        with self.start(name, *words, cwd=cwd, env=env) as running:
            return running.wait()

    @contextmanager
    def start(
        self,
        name: str,
        *words: Word,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdout: int = subprocess.PIPE,
    ) -> Iterator[Running]:
        """Start a command; it is killed at the end of the block if it has not ended by then."""
        environment = {**os.environ, **(env or {})}
        if self._layout is not None:
            environment[ENV_CLUSTER] = str(self._layout.base)
        process = subprocess.Popen(
            [sys.executable, "-m", MODULES[name], *words],
            cwd=cwd or self._cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="surrogateescape",
        )
        with process:
            try:
                yield Running(process)
            finally:
                if process.poll() is None:
                    process.kill()
