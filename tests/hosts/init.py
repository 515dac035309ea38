"""A host's init: process 1 of its PID namespace. It builds the host's file tree and starts its services.

The tree is a tmpfs with the machine's directories bound into it. These are the host's own: /etc (the machine's files by
symbolic links to a read-only view, the cluster's own in their place), /run, /tmp, /scratch, /home, /root, /dev/shm.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

from tests.hosts import kernel
from tests.hosts.host import OWN

NEW_ROOT = "/tmp"  # every machine has it; covered only in the host's own mount namespace
DISKS = ("run", "scratch", "tmp")  # file systems of their own, as on most machines
KERNEL = {"proc": "proc", "sys": "sysfs"}  # what these show depends on the host's namespaces


def run(spec: dict[str, Any], talk: socket.socket) -> None:
    """Be the host that `spec` describes, for ever; `talk` takes the steps in turn with the cluster's owner."""
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWNET)
    os.umask(0o022)
    kernel.set_hostname(spec["name"])
    build_root(spec)
    talk.send(json.dumps({"up": True}).encode())
    network = json.loads(talk.recv(1 << 20) or "null")
    if network is None:
        os._exit(1)
    _batch("ip", network["ip"])
    _batch("tc", network["tc"])
    for service in spec["services"]:
        _start(service)
    talk.send(json.dumps({"ready": True}).encode())
    talk.close()
    _reap_for_ever()


def build_root(spec: dict[str, Any]) -> None:
    kernel.mount("", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    handles = {path: os.open(path, os.O_PATH) for path in spec["shared"]}
    disk = os.open(spec["scratch"], os.O_PATH) if spec["scratch"] is not None else None
    own_etc = os.open("/etc", os.O_PATH)
    kernel.mount("tmpfs", NEW_ROOT, "tmpfs", kernel.MS_NODEV, "mode=755")
    for entry in os.scandir("/"):
        target = f"{NEW_ROOT}/{entry.name}"
        if entry.name in OWN or entry.name in KERNEL:
            continue
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), target)
        elif entry.is_dir():
            os.mkdir(target)
            kernel.mount(entry.path, target, flags=kernel.MS_BIND | kernel.MS_REC)
    for name, mode in OWN.items():
        os.mkdir(f"{NEW_ROOT}/{name}")
        if name in DISKS:
            kernel.mount("tmpfs", f"{NEW_ROOT}/{name}", "tmpfs", kernel.MS_NODEV, f"mode={mode:o}")
        os.chmod(f"{NEW_ROOT}/{name}", mode)
    _make_etc(own_etc, spec["files"])
    for path, handle in handles.items():
        _show(path, handle)
    if disk is not None:
        kernel.mount(f"/proc/self/fd/{disk}", f"{NEW_ROOT}/scratch", flags=kernel.MS_BIND | kernel.MS_REC)
    for handle in (*handles.values(), own_etc, *([disk] if disk is not None else [])):
        os.close(handle)
    for name, kind in KERNEL.items():
        os.mkdir(f"{NEW_ROOT}/{name}")
        kernel.mount(kind, f"{NEW_ROOT}/{name}", kind, kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    if os.path.ismount("/sys/fs/cgroup"):
        kernel.mount("/sys/fs/cgroup", f"{NEW_ROOT}/sys/fs/cgroup", flags=kernel.MS_BIND | kernel.MS_REC)
    kernel.mount("tmpfs", f"{NEW_ROOT}/dev/shm", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777")
    os.chdir(NEW_ROOT)
    kernel.mount(".", "/", flags=kernel.MS_MOVE)
    os.chroot(".")
    os.chdir("/")
    for home in spec["homes"]:
        _make_home(home)


def _make_etc(own_etc: int, files: dict[str, tuple[int, str]]) -> None:
    names = (f"/.etc-{number}" for number in itertools.count())  # a host of this kind may itself be the machine
    machine = next(name for name in names if not os.path.exists(NEW_ROOT + name))
    view = NEW_ROOT + machine
    os.mkdir(view)
    kernel.mount(f"/proc/self/fd/{own_etc}", view, flags=kernel.MS_BIND | kernel.MS_REC)
    kept = os.statvfs(view).f_flag & (kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    kernel.mount("", view, flags=kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kept)
    own = {name.split("/")[0] for name in files}
    for name in os.listdir(view):
        if name not in own:
            os.symlink(f"{machine}/{name}", f"{NEW_ROOT}/etc/{name}")
    for name, (mode, text) in files.items():
        _write(Path(f"{NEW_ROOT}/etc/{name}"), mode, text)


def _show(path: str, handle: int) -> None:
    """Let a directory of the machine be seen that lies below one of the host's own."""
    if path.split("/")[1] in OWN:
        os.makedirs(NEW_ROOT + path, exist_ok=True)
        kernel.mount(f"/proc/self/fd/{handle}", NEW_ROOT + path, flags=kernel.MS_BIND | kernel.MS_REC)


def _make_home(home: dict[str, Any]) -> None:
    path = Path(home["path"])
    path.mkdir(exist_ok=True)
    (path / ".ssh").mkdir(mode=0o700)
    for name, (mode, text) in home["files"].items():
        _write(path / name, mode, text)
    for place in (path, path / ".ssh", *(path / ".ssh").iterdir()):
        os.chown(place, home["uid"], home["uid"])


def _write(path: Path, mode: int, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    path.chmod(mode)


def _batch(command: str, lines: list[str]) -> None:
    if lines:
        text = "\n".join(lines) + "\n"
        done = subprocess.run([command, "-batch", "-"], input=text, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError(f"{command} -batch: {done.stderr.strip() or done.stdout.strip()}")


def _start(service: dict[str, Any]) -> None:
    for directory in service["directories"]:
        if os.path.islink(directory):  # to the machine's own
            os.unlink(directory)
        os.makedirs(directory, mode=0o755)
        os.chown(directory, service["uid"], service["gid"])
    for name, (mode, text) in service["files"].items():
        _write(Path(name), mode, text)
        os.chown(name, service["uid"], service["gid"])
    log = os.open(f"/run/{service['name']}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    subprocess.Popen(
        service["argv"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        user=service["uid"] or None,
        group=service["gid"] or None,
        extra_groups=[] if service["uid"] else None,
        start_new_session=True,
    )
    os.close(log)


def _reap_for_ever() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            pass
        signal.sigwait({signal.SIGCHLD})
