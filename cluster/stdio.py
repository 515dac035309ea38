"""Where the output of a run's processes goes, as the command tells it and every node of the run knows it."""

from __future__ import annotations

from dataclasses import dataclass, field

from staging.mover.digests import HASHES

STDIO_HASH = HASHES["blake2b"]


@dataclass(frozen=True)
class Stdio:
    """The command's listener, and the key that proves membership of the run."""

    run: str
    host: str
    port: int
    key: str = field(repr=False)
