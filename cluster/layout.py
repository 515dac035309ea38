"""Where a cluster keeps its files: sockets, keys, logs, and on an embedded cluster the nodes' own file trees."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from staging.mover.errors import RefusedError, Unreachable, UsageError

ENV_CLUSTER = "STAGE_CLUSTER"
MAX_SOCKET_PATH = 100  # sun_path holds 108 bytes; the longest name below a node's directory is short


@dataclass(frozen=True)
class HeadInfo:
    """What a node or a command must know of a running head."""

    pid: int
    scheduler: str
    host: str
    doors: int  # TCP port at which nodes hand their own door's connections on
    uid: int  # whose cluster it is
    kind: str  # how its nodes were started: "local" or "hosts" by `stage up`, "" by others


@dataclass(frozen=True)
class Layout:
    """Paths beneath one cluster directory."""

    base: Path

    @property
    def head_socket(self) -> Path:
        return self.base / "head.sock"

    @property
    def head_file(self) -> Path:
        return self.base / "head.json"

    @property
    def keys(self) -> Path:
        return self.base / "keys"

    @property
    def logs(self) -> Path:
        return self.base / "log"

    @property
    def nodes(self) -> Path:
        return self.base / "nodes"

    def node(self, name: str) -> Path:
        return self.nodes / name

    def root(self, name: str) -> Path:
        """The file tree of an embedded node."""
        return self.node(name) / "root"

    def door(self, name: str) -> Path:
        return self.node(name) / "door.sock"

    def parts(self) -> list[Path]:
        """Everything that a cluster puts into its directory."""
        return [
            self.head_socket,
            self.head_file,
            self.nodes,
            self.base / "dask-scratch-space",
            self.logs,
            self.keys,
            self.jobs_file,
            self.lock_file,
            self.kept_file,
        ]

    @property
    def marker_file(self) -> Path:
        """It says that all of `parts` in this directory are a cluster's, and stays as long as any of them does."""
        return self.base / ".longshore"

    @property
    def jobs_file(self) -> Path:
        """The number of the last job."""
        return self.base / "jobs"

    @property
    def kept_file(self) -> Path:
        """The scratch directories in the nodes' file trees that hold results, each ended by a zero byte."""
        return self.base / "kept"

    def keep(self, paths: Iterable[str]) -> None:
        """Have the nodes' file trees stay when this cluster ends, for as long as any of these paths is there."""
        with open(self.kept_file, "a", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(f"{path}\0" for path in paths)

    def kept(self) -> list[str]:
        """What was to be kept and is still there."""
        try:
            text = self.kept_file.read_text(encoding="utf-8", errors="surrogateescape")
        except FileNotFoundError:
            return []
        return [path for path in text.split("\0") if path and os.path.lexists(path)]

    @property
    def lock_file(self) -> Path:
        """Held by whoever starts or ends the cluster (cluster.keyfiles.locked)."""
        return self.base / ".lock"

    def make(self) -> None:
        """Create the directory, ours alone; RefusedError where it is somebody else's or open to others.

        UsageError for one that holds anything and was not made by this: it would be removed with the cluster.
        """
        if len(str(self.base)) > MAX_SOCKET_PATH - 30:
            raise UsageError(f"the cluster directory's name is too long: {self.base}", "choose a shorter one")
        for path in (self.base.parent, self.base):
            if path in (self.base, personal()):
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
                _private(path)
        names = {path.name for path in self.base.iterdir()}
        if names and self.marker_file.name not in names:
            raise UsageError(f"{self.base} holds other things, such as {min(names)}", "name a new or empty directory")
        self.marker_file.touch(mode=0o600)
        self.logs.mkdir(exist_ok=True, mode=0o700)

    def remove_all(self) -> None:
        """Delete the directory of a node that has it alone, and the one above it when that was the last of them."""
        shutil.rmtree(self.base, ignore_errors=True)
        with contextlib.suppress(OSError):  # other nodes of this user are in it
            self.base.parent.rmdir()

    def write_head(self, info: HeadInfo) -> None:
        """Announce a running head, atomically."""
        fd, temporary = tempfile.mkstemp(dir=self.base)
        with os.fdopen(fd, "w") as file:
            json.dump(asdict(info), file)
        os.replace(temporary, self.head_file)

    def read_head(self) -> HeadInfo:
        """The announced head; Unreachable when there is none."""
        try:
            return HeadInfo(**json.loads(self.head_file.read_text()))
        except FileNotFoundError:
            raise Unreachable(f"no cluster is running in {self.base}", "start one with `stage up --local 4`") from None
        except (TypeError, ValueError):
            raise Unreachable(
                f"{self.head_file} is of another version", "remove it and start the cluster again"
            ) from None


def _private(path: Path) -> None:
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o077:
        raise RefusedError(f"{path} must be a directory of yours alone", f"chmod 700 {path}, or choose another")


def personal() -> Path:
    """Where this user's clusters live on this machine."""
    return Path(tempfile.gettempdir()) / f"longshore-{os.geteuid()}"


def working_directory() -> Path:
    """The current directory; UsageError where it was deleted."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise UsageError("the current directory does not exist any more", "cd to one that does") from None


def find(named: str | None = None) -> Layout:
    """The cluster that a command means: `--cluster`, else $STAGE_CLUSTER, else the user's default one."""
    chosen = named or os.environ.get(ENV_CLUSTER)
    if not chosen:
        return Layout(personal() / "default")
    base = Path(chosen) if os.path.isabs(chosen) else working_directory() / chosen
    if base.exists() and not base.is_dir():
        origin = "--cluster" if named else ENV_CLUSTER
        raise UsageError(f"{origin} names {base}, which is no directory", "name the cluster's directory")
    return Layout(base)
