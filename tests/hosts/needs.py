"""What this machine lacks for a cluster, in words for a skip."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterable
from functools import cache

from tests.hosts.host import SYSTEM_PATH

PACKAGES = {
    "ip": "iproute2",
    "tc": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "nft": "nftables",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "munged": "munge",
}
ALWAYS = ("ip", "tc", "unshare", "nsenter")
TRIALS = {
    "bridges": "ip link add trial type bridge",
    "veth": "ip link add one type veth peer name other && ip link set one up",
    "tbf": "tc qdisc add dev one root tbf rate 1mbit burst 10000 latency 50ms",
}
FAULT_TRIALS = {
    "nft's egress hook": "printf 'table netdev t { chain c { type filter hook egress device one priority 0\\n"
    "numgen random mod 100 < 1 drop\\nnumgen random mod 100 < 1 dup to one\\n}\\n}\\n' | nft -f -",
}


def missing(*, sshd: bool = False, munged: bool = False, users: bool = False, faults: bool = False) -> list[str]:
    """What a cluster with these things would need and cannot have here. `faults`: packets are to be lost or doubled."""
    if sys.platform != "linux":
        return ["Linux"]
    programs = [
        *ALWAYS,
        *(["sshd", "ssh"] if sshd else []),
        *(["munged"] if munged else []),
        *(["nft"] if faults else []),
    ]
    lacks = [f"{name} (package {PACKAGES[name]})" for name in programs if shutil.which(name, path=_path()) is None]
    if (sshd or munged or users) and os.geteuid() != 0:
        lacks.append("root (sshd, munged and further users need more than one uid)")
    if munged and not any(user.pw_name == "munge" for user in pwd.getpwall()):
        lacks.append("the user munge")
    if lacks:
        return lacks
    refusal = _namespaces()
    if refusal:
        return [f"namespaces, by {'root' if os.geteuid() == 0 else 'user namespaces or root'} ({refusal})"]
    return _kernel(tuple(TRIALS.items())) or (_kernel((*TRIALS.items(), *FAULT_TRIALS.items())) if faults else [])


@cache
def _namespaces() -> str:
    done = _try(["true"])
    return "" if done.returncode == 0 else done.stderr.strip()


@cache
def _kernel(trials: Iterable[tuple[str, str]]) -> list[str]:
    """Those of the kernel's parts that do not work in a namespace."""
    script = "".join(f'({trial}) >/dev/null 2>&1 || echo "{name}"\n' for name, trial in trials)
    return [f"{name} in the kernel" for name in _try(["sh", "-c", script]).stdout.splitlines()]


def _try(argv: list[str]) -> subprocess.CompletedProcess[str]:
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    kinds = ["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc"]
    environment = {**os.environ, "PATH": _path(), "LC_ALL": "C"}
    return subprocess.run(
        ["unshare", *user, *kinds, *argv], env=environment, capture_output=True, text=True, check=False
    )


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
