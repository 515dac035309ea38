"""A real Slurm on a test cluster: slurmctld on the head, slurmd on every node.

with Cluster(4, munged=True, users=True) as cluster, Slurm(cluster) as slurm:
    job = slurm.submit("#!/bin/sh\\nsrun hostname\\n", user="alice", nodes=2)
    assert slurm.wait(job) == "COMPLETED"
"""

from __future__ import annotations

import contextlib
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from tests.hosts.cluster import Cluster
from tests.hosts.host import SYSTEM_PATH, Host
from tests.hosts.needs import missing as missing_for_cluster
from tests.hosts.network import HostsError

DIRECTORY = "/run/slurm"
PROGRAMS = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "sbcast": "slurm-client",
}
USER = "slurm"
READY_SECONDS = 60.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.05
OVER = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY", "DEADLINE")

CONF = """\
ClusterName=hosts
SlurmctldHost={head}({address})
SlurmUser={user}
AuthType=auth/munge
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_min_interval=20000,bf_interval=2
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=5
{settings}
{nodes}
PartitionName=all Nodes={names} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def missing() -> list[str]:
    """What this machine lacks for Slurm on a cluster, in words for a skip."""
    lacks = missing_for_cluster(munged=True, users=True)
    lacks += [f"{name} (package {PROGRAMS[name]})" for name in PROGRAMS if shutil.which(name, path=SYSTEM_PATH) is None]
    if not any(user.pw_name == USER for user in pwd.getpwall()):
        lacks.append(f"the user {USER} (package slurmctld)")
    return lacks


class Slurm:
    """Slurm on all hosts of a cluster that is up and has munged. Every node has `cpus` CPUs, whatever the machine has.

    settings: further lines of slurm.conf, such as a Prolog. Commands (`host.run(["sinfo"])`) need no environment.
    """

    def __init__(self, cluster: Cluster, *, settings: str = "", cpus: int = 4) -> None:
        self.cluster = cluster
        lines = [f"NodeName={node.name} NodeAddr={node.address} CPUs={cpus} State=UNKNOWN" for node in cluster.nodes]
        self._conf = CONF.format(
            head=cluster.head.name,
            address=cluster.head.address,
            user=USER,
            directory=DIRECTORY,
            settings=settings.strip(),
            nodes="\n".join(lines),
            names=",".join(node.name for node in cluster.nodes),
        )
        self._daemons: dict[str, subprocess.Popen[Any]] = {}  # by host

    def __enter__(self) -> Slurm:
        try:
            for host in self.cluster.hosts.values():
                self.start(host)
            self.wait_idle()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self, host: Host) -> None:
        """Configure a host that has just booted and start its daemon."""
        etc = host.path("/etc/slurm")
        if etc.is_symlink() or not etc.exists():  # the machine's own; the host's /etc is a directory of links
            etc.unlink(missing_ok=True)
            etc.mkdir(mode=0o755)
        (etc / "slurm.conf").write_text(self._conf)
        owner = pwd.getpwnam(USER)
        for name in ("", "/state", "/spool"):
            directory = host.path(DIRECTORY + name)
            directory.mkdir(mode=0o755, exist_ok=True)
            if name != "/spool":
                shutil.chown(directory, owner.pw_uid, owner.pw_gid)
        daemon = ["slurmctld", "-D"] if host is self.cluster.head else ["slurmd", "-D", "-N", host.name]
        self._daemons[host.name] = host.popen(
            daemon, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def stop(self) -> None:
        """End all daemons, the nodes' first; jobs end with the cluster."""
        if self.cluster.head.pid is not None and self.cluster.head.name in self._daemons:
            with contextlib.suppress(subprocess.SubprocessError, HostsError):
                self.cluster.head.run(["scancel", "--full", f"--nodelist={','.join(self._nodes())}"], check=False)
        for daemon in reversed(self._daemons.values()):
            if daemon.poll() is None:
                daemon.terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()

    def states(self) -> dict[str, str]:
        """sinfo's state of each node, such as 'idle' or 'down*'; nothing while slurmctld does not answer."""
        done = self.cluster.head.run(["sinfo", "--noheader", "--Node", "--format=%N %t"], check=False)
        return dict(line.split() for line in done.stdout.splitlines()) if done.returncode == 0 else {}

    def idle(self) -> bool:
        """Whether every node waits for work."""
        states = self.states()
        return len(states) == len(self.cluster.nodes) and all(state == "idle" for state in states.values())

    def wait_idle(self, seconds: float = READY_SECONDS) -> None:
        """Until every node is idle. Raises HostsError with the states and the end of slurmctld's log."""
        deadline = time.monotonic() + seconds
        while not self.idle():
            dead = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            if dead or time.monotonic() > deadline:
                name = dead[0] if dead else self.cluster.head.name
                raise HostsError(f"Slurm is not idle: {self.states()}, ended: {dead}\n{self.log(name)[-2000:]}")
            time.sleep(POLL_SECONDS)

    def log(self, name: str) -> str:
        """What the daemon of a host wrote."""
        daemon = "slurmctld" if name == self.cluster.head.name else "slurmd"
        path = self.cluster[name].path(f"{DIRECTORY}/{daemon}.log")
        return path.read_text(errors="replace") if path.exists() else ""

    def submit(self, script: str, *, user: str = "root", nodes: int = 1, options: Sequence[str] = ()) -> int:
        """sbatch a script of `user`, its output in /tmp of its first node unless told otherwise; the job's id."""
        argv = ["sbatch", "--parsable", f"--nodes={nodes}", "--chdir=/tmp", "--output=/tmp/%j.out", *options]
        return int(self.cluster.head.run(argv, user=user, input=script).stdout.split(";")[0])

    def allocate(self, nodes: int, *, user: str = "root") -> int:
        """An allocation of whole nodes with no process in it; the job's id. End it by `cancel`."""
        argv = ["salloc", f"--nodes={nodes}", "--exclusive", "--no-shell"]
        done = self.cluster.head.run(argv, user=user)
        found = re.search(r"Granted job allocation (\d+)", done.stdout + done.stderr)
        if found is None:
            raise HostsError(f"salloc gave no allocation: {done.stderr}")
        return int(found[1])

    def cancel(self, job: int) -> None:
        self.cluster.head.run(["scancel", str(job)])

    def state(self, job: int) -> str:
        """The state of a job, such as PENDING, RUNNING, COMPLETED."""
        shown = self.cluster.head.run(["scontrol", "--oneliner", "show", "job", str(job)]).stdout
        found = re.search(r"\bJobState=(\S+)", shown)
        assert found is not None, shown
        return found[1]

    def wait(self, job: int, seconds: float = READY_SECONDS) -> str:
        """Until a job is over; its last state. Raises HostsError when that takes too long."""
        deadline = time.monotonic() + seconds
        while (state := self.state(job)) not in OVER:
            if time.monotonic() > deadline:
                raise HostsError(
                    f"job {job} is {state} after {seconds:.0f} s\n{self.log(self.cluster.head.name)[-2000:]}"
                )
            time.sleep(POLL_SECONDS)
        return state

    def _nodes(self) -> list[str]:
        return [node.name for node in self.cluster.nodes]
