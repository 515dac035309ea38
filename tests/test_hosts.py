"""The test cluster: what a host has of its own, links that change while it runs, and that nothing of it stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from support import leaks
from support.polling import until
from tests.hosts import Cluster, HostsError, needs, network
from tests.hosts.fixtures import Hosts, need
from tests.hosts.host import Host
from tests.hosts.stream import one_stream

ROOT = Path(__file__).resolve().parents[1]
NAMESPACES = ("ipc", "mnt", "net", "pid", "uts")
RATE = "200mbit"
SLEEP = ["sleep", "1000"]
COUNT = 2000
NOBODY = 65534

# Programs for hosts; most take an address. RECEIVE says how many datagrams of SEND came, ASK how fast ECHO is at best.
RECEIVE = """
import socket, sys
room = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    room.setsockopt(socket.SOL_SOCKET, 33, 1 << 23)  # SO_RCVBUFFORCE
except PermissionError:
    room.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 23)
room.bind((sys.argv[1], 6000))
print("ready", flush=True)
seen, word = [], b""
while word != b"end":
    word = room.recv(2000)
    seen.append(word)
print(len(seen) - 1, len(set(seen)) - 1)
"""
SEND = f"""
import socket, sys
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range({COUNT}):
    out.sendto(b"%05d" % number * 10, (sys.argv[1], 6000))
for _ in range(50):
    out.sendto(b"end", (sys.argv[1], 6000))
"""
JOIN = """
import socket
room = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
room.bind(("", 6002))
room.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("239.1.2.3") + bytes(4))
print("ready", flush=True)
print(room.recv(100).decode())
"""
CALL = """
import socket
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"all of you", ("239.1.2.3", 6002))
"""
ECHO = """
import socket, sys
server = socket.create_server((sys.argv[1], 6001))
print("ready", flush=True)
stream, _ = server.accept()
while word := stream.recv(1):
    stream.sendall(word)
"""
ASK = """
import socket, sys, time
times = []
with socket.create_connection((sys.argv[1], 6001)) as stream:
    for _ in range(5):
        begin = time.perf_counter()
        stream.sendall(b".")
        stream.recv(1)
        times.append(time.perf_counter() - begin)
print(min(times))
"""
REACH = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3])).close()"


@pytest.fixture(scope="module")
def cluster(hosts: Hosts) -> Cluster:
    """Eight hosts for all tests here; a test that changes a link changes it back."""
    return hosts(8, rate=RATE, faults=True)


@pytest.fixture(scope="module")
def served(hosts: Hosts) -> Cluster:
    """Hosts with daemons and users."""
    return hosts(2, sshd=True, munged=True, users=True)


def python(code: str, *words: object) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code, *map(str, words)]


@contextmanager
def serving(host: Host, code: str) -> Iterator[subprocess.Popen[str]]:
    """A program that has said that it is ready."""
    with host.popen(python(code, host.address), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def received(source: Host, target: Host) -> tuple[int, int]:
    """Of COUNT datagrams: how many came, how many of them are different."""
    with serving(target, RECEIVE) as receiver:
        source.run(python(SEND, target.address))
        out, _ = receiver.communicate(timeout=30)
    came, different = out.split()
    return int(came), int(different)


def round_trip(source: Host, target: Host) -> float:
    """Seconds."""
    with serving(target, ECHO):
        return float(source.run(python(ASK, target.address)).stdout)


def reaches(source: Host, target: Host) -> bool:
    """Whether `target` answers at all, be it with a refusal."""
    done = source.run(python(REACH, target.address, 9, 0.3), check=False)
    return "ConnectionRefusedError" in done.stderr


class TestHosts:
    def test_eight_are_up_within_three_seconds(self, hosts: Hosts) -> None:
        need()
        begin = time.monotonic()
        with Cluster(8, rate=RATE) as cluster:
            assert time.monotonic() - begin < 3
            assert [host.name for host in cluster.nodes] == [f"n{k}" for k in range(1, 9)]

    def test_each_has_namespaces_and_a_name_of_its_own(self, cluster: Cluster) -> None:
        places = [f"/proc/{host.pid}/ns" for host in cluster.hosts.values()] + ["/proc/self/ns"]
        for kind in NAMESPACES:
            assert len({os.readlink(f"{place}/{kind}") for place in places}) == len(places)
        for name, host in cluster.hosts.items():
            assert host.run(["hostname"]).stdout == f"{name}\n"
            assert host.run(["cat", "/etc/hostname"]).stdout == f"{name}\n"

    def test_all_names_are_known_and_reached_at_both_addresses(self, cluster: Cluster) -> None:
        for host in cluster.nodes:
            known = cluster.head.run(["getent", "ahosts", host.name]).stdout
            assert {line.split()[0] for line in known.splitlines()} == {host.address, host.address6}
        for address in (cluster["n8"].address, cluster["n8"].address6, "n8"):
            done = cluster.head.run(python(REACH, address, 9, 5), check=False)
            assert "ConnectionRefusedError" in done.stderr

    def test_files_are_its_own_where_a_machine_has_its_own(self, cluster: Cluster) -> None:
        one, two = cluster["n1"], cluster["n2"]
        name = f"hosts-{os.getpid()}"
        for directory in ("/scratch", "/tmp", "/run", "/etc", "/home", "/root", "/dev/shm"):
            path = f"{directory}/{name}"
            one.run(["sh", "-c", 'echo mine > "$0"', path])
            assert one.path(path).read_text() == "mine\n"
            assert not two.path(path).exists()
            assert not Path(path).exists()
            one.path(path).unlink()
        assert two.run(["test", "-e", ROOT / "pyproject.toml"]).returncode == 0

    def test_the_machine_configuration_cannot_be_changed(self, cluster: Cluster) -> None:
        before = Path("/etc/hosts").read_text()
        for file in ("/etc/hosts", "/etc/passwd"):
            cluster["n1"].run(["sh", "-c", 'echo >> "$0"', file])
        view = next(path for path in cluster["n1"].path("/etc").iterdir() if path.is_symlink())
        done = cluster["n1"].run(["touch", f"{view.readlink().parent}/new"], check=False)
        assert "Read-only file system" in done.stderr
        assert Path("/etc/hosts").read_text() == before

    def test_a_disk_of_a_given_size_fills(self, cluster: Cluster) -> None:
        host = cluster["n1"]
        cluster.disk("n1", "/scratch/small", "4m")
        assert os.statvfs(host.path("/scratch/small")).f_blocks * 4096 == 4 << 20
        done = host.run(["dd", "if=/dev/zero", "of=/scratch/small/x", "bs=1M", "count=5"], check=False)
        assert "No space left" in done.stderr
        host.run(["umount", "/scratch/small"])
        with pytest.raises(HostsError, match="/usr/new would be made on the machine"):
            cluster.disk("n1", "/usr/new", "4m")

    def test_a_scratch_on_disk_outlives_a_crash(self, tmp_path: Path) -> None:
        need()
        with Cluster(1, scratch=tmp_path) as cluster:
            cluster["n1"].path("/scratch/x").write_text("kept")
            cluster["n1"].path("/tmp/x").write_text("lost")
            cluster.crash("n1")
            assert (tmp_path / "n1" / "x").read_text() == "kept"
            cluster.boot("n1")
            assert cluster["n1"].run(["cat", "/scratch/x"]).stdout == "kept"
            assert not cluster["n1"].path("/tmp/x").exists()


class TestProcesses:
    def test_it_is_the_callers_child_in_the_host(self, cluster: Cluster) -> None:
        with cluster["n2"].popen(["sh", "-c", "echo $PPID; read x"], stdin=-1, stdout=-1, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() in ("0\n", "1\n")
            for kind in NAMESPACES:
                host, its = (os.readlink(f"/proc/{pid}/ns/{kind}") for pid in (cluster["n2"].pid, leaf(process.pid)))
                assert host == its
            process.terminate()
            assert process.wait() == -signal.SIGTERM

    def test_its_end_directory_environment_and_streams(self, cluster: Cluster) -> None:
        host = cluster["n2"]
        done = host.run(
            ["sh", "-c", "pwd; echo $X; cat; exit 3"], check=False, cwd="/scratch", env={"X": "y"}, input="in"
        )
        assert (done.returncode, done.stdout) == (3, "/scratch\ny\nin")
        with pytest.raises(subprocess.CalledProcessError) as raised:
            host.run(["sh", "-c", "echo why >&2; exit 4"])
        assert "on n2" in raised.value.__notes__[0]
        assert "why" in raised.value.__notes__[0]

    def test_a_command_too_slow_is_killed(self, cluster: Cluster) -> None:
        with pytest.raises(subprocess.TimeoutExpired):
            cluster["n2"].run(SLEEP, timeout=0.1)

    def test_one_left_on_a_host_is_a_leak_and_the_hosts_own_are_none(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(leaks, "GRACE_SECONDS", 0.0)
        nothing = leaks.Watched([], [])
        before = leaks.snapshot(nothing)
        cluster.crash("n8")
        cluster.boot("n8")
        assert leaks.settle(before, lambda: leaks.snapshot(nothing)) == []
        cluster["n8"].run(["sh", "-c", "sleep 1000 >/dev/null 2>&1 &"])
        assert ["sleep" in line for line in leaks.settle(before, lambda: leaks.snapshot(nothing))] == [True]
        cluster.crash("n8")
        assert leaks.settle(before, lambda: leaks.snapshot(nothing)) == []
        cluster.boot("n8")


class TestLinks:
    def test_a_stream_is_held_to_the_rate_and_counted_once(self, cluster: Cluster) -> None:
        nbytes = 5_000_000
        sent, came = cluster.head.sent(), cluster["n1"].received()
        assert one_stream(cluster.head, cluster["n1"], nbytes) > nbytes * 8 / network.bits(RATE)
        assert nbytes < cluster.head.sent() - sent < nbytes * 1.1
        assert nbytes < cluster["n1"].received() - came < nbytes * 1.1

    def test_one_link_is_slowed_and_freed(self, cluster: Cluster) -> None:
        nbytes = 1_000_000
        for sender, receiver in (("n3", "n4"), ("n4", "n3")):
            cluster.rate("n3", "20mbit")
            held = nbytes - 2 * network.BUCKET_LEAST  # what is left when both ends' buckets are empty
            assert one_stream(cluster[sender], cluster[receiver], nbytes) > held * 8 / 20e6
        cluster.rate("n3", None)
        assert "tbf" not in cluster["n3"].run(["tc", "qdisc"]).stdout
        cluster.rate("n3", RATE)
        assert "200Mbit" in cluster["n3"].run(["tc", "qdisc"]).stdout

    def test_packets_are_lost_on_their_way_to_a_host(self, cluster: Cluster) -> None:
        cluster.loss("n5", "20%")
        came, different = received(cluster.head, cluster["n5"])
        assert came == different
        assert 0.75 < came / COUNT < 0.85  # more than five standard deviations either way
        assert received(cluster["n5"], cluster.head) == (COUNT, COUNT)
        cluster.loss("n5", None)
        assert received(cluster.head, cluster["n5"]) == (COUNT, COUNT)

    def test_they_are_lost_one_by_one_though_the_kernel_makes_large_segments(self, cluster: Cluster) -> None:
        cluster.loss("n5", "1%")
        before = packets(cluster["n6"])
        one_stream(cluster["n6"], cluster["n5"], 1_000_000)
        assert packets(cluster["n6"]) - before > 1_000_000 / 1500
        cluster.loss("n5", None)

    def test_packets_come_twice(self, cluster: Cluster) -> None:
        cluster.duplicates("n5", "20%")
        came, different = received(cluster.head, cluster["n5"])
        assert different == COUNT
        assert 1.15 < came / COUNT < 1.25
        cluster.duplicates("n5", None)
        assert received(cluster.head, cluster["n5"]) == (COUNT, COUNT)

    def test_a_group_is_heard_by_its_members(self, cluster: Cluster) -> None:
        with serving(cluster["n1"], JOIN) as one, serving(cluster["n2"], JOIN) as two:
            cluster.head.run(python(CALL))
            for receiver in (one, two):
                assert receiver.communicate(timeout=10)[0] == "all of you\n"

    def test_a_host_is_cut_off_and_healed(self, cluster: Cluster) -> None:
        cluster.cut("n7")
        assert not reaches(cluster.head, cluster["n7"])
        assert not reaches(cluster["n7"], cluster.head)
        until("a host that is not cut off", lambda: reaches(cluster.head, cluster["n6"]))
        cluster.heal("n7")
        until("the healed host", lambda: reaches(cluster.head, cluster["n7"]))
        until("the head from there", lambda: reaches(cluster["n7"], cluster.head))

    def test_delay_over_several_networks(self) -> None:
        need()
        with Cluster(2, nics=2, delay="5ms") as cluster:
            head, one, two = cluster.hosts.values()
            assert round_trip(head, one) > 0.020  # each way out of one host and into the other
            cluster.cut("n1")
            assert not reaches(head, one)
            cluster.heal("n1")
            for name in ("n1", "n2"):
                cluster.delay(name, None)
            assert round_trip(one, two) < 0.020
            cluster.delay("n1", "20ms")
            assert round_trip(one, two) > 0.040
            cluster.delay("n1", "1ms")
            assert round_trip(one, two) < 0.040
            assert one.addresses == ("10.79.0.11", "10.80.0.11")
            way = head.run(["ip", "route", "get", one.addresses[1]]).stdout
            assert "dev eth1" in way
            assert one_stream(head, one, 100_000, nic=1) > 0.011

    def test_bad_settings_are_refused_and_change_nothing(self, cluster: Cluster) -> None:
        changes: list[Callable[[], None]] = [
            lambda: cluster.rate("n1", "fast"),
            lambda: cluster.loss("n1", "200%"),
            lambda: cluster.cut("n99"),
        ]
        for change in changes:
            with pytest.raises(HostsError):
                change()
        with pytest.raises(HostsError, match="such as '2ms'"):
            Cluster(1, delay="2")
        cluster.crash("n1")
        cluster.boot("n1")
        assert "200Mbit" in cluster["n1"].run(["tc", "qdisc"]).stdout


class TestCrashes:
    def test_a_host_that_loses_power_and_boots(self, cluster: Cluster) -> None:
        host = cluster["n4"]
        host.path("/scratch/x").write_text("gone")
        mac = host.run(["cat", "/sys/class/net/eth0/address"]).stdout
        cluster.rate("n4", "100mbit")
        cluster.cut("n4")
        with host.popen(SLEEP) as process, host.popen(["sh", "-c", "trap '' TERM; sleep 1000"]) as stubborn:
            cluster.crash("n4")
            assert process.wait(5) == stubborn.wait(5) == -signal.SIGKILL
        assert host.pid is None
        with pytest.raises(HostsError, match="n4 is down"):
            host.run(["true"])
        assert not reaches(cluster.head, host)
        cluster.boot("n4")
        assert not host.path("/scratch/x").exists()
        assert host.run(["cat", "/sys/class/net/eth0/address"]).stdout == mac
        assert "100Mbit" in host.run(["tc", "qdisc"]).stdout
        assert not reaches(cluster.head, host)
        cluster.heal("n4")
        until("the healed host", lambda: reaches(cluster.head, host))
        cluster.rate("n4", RATE)

    def test_nothing_stays_after_an_exception(self) -> None:
        need()
        before = machine()
        started = []

        def fail(cluster: Cluster) -> None:
            with cluster:
                started.append(cluster["n1"].popen(SLEEP))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail(Cluster(2, delay="1ms"))
        assert started[0].returncode == -signal.SIGKILL
        assert machine() == before

    @pytest.mark.parametrize("victim", ["owner", "keeper"])
    def test_nothing_stays_when_its_owner_or_its_keeper_is_killed(self, victim: str) -> None:
        need()
        before = machine()
        argv = [sys.executable, "-m", "tests.hosts", "up", "2", "--delay", "1ms", "--", *SLEEP]
        with subprocess.Popen(argv, cwd=ROOT) as owner:
            try:
                members = until("the command on the head", lambda: members_of(owner.pid))
                keeper = next(p for p in members if p.ppid() == owner.pid and "tests.hosts.keeper" in p.cmdline())
                assert len(members) >= 1 + 3 + 3 + 1  # the keeper, inits, forwarders, the command
                (owner if victim == "owner" else keeper).kill()
                # The machine's init has to reap the command first, which takes some of them a while.
                until("the end of all", lambda: not [p for p in members if leaks.alive(p)], seconds=30)
            finally:
                owner.kill()
        until("the end of all namespaces", lambda: machine() == before)

    def test_a_host_that_cannot_boot_says_why_and_takes_all_down(self, tmp_path: Path) -> None:
        need()
        before = machine()
        with (
            pytest.raises(HostsError, match=r"head does not start: .*not-there"),
            Cluster(1, shared=[tmp_path / "not-there"]),
        ):
            pass
        assert machine() == before


class TestServices:
    def test_ssh_works_between_all_hosts_without_options(self, served: Cluster) -> None:
        assert served.head.run(["ssh", "n1", "hostname"]).stdout == "n1\n"
        assert served["n1"].run(["ssh", "-F", served.ssh_config, "n2", "hostname"]).stdout == "n2\n"
        assert served["n2"].run(["ssh", served["n1"].address6, "id", "-u"]).stdout == "0\n"

    def test_ssh_takes_keys_only(self, served: Cluster) -> None:
        offered = served.head.run(["ssh", "-o", "PubkeyAuthentication=no", "n1", "true"], check=False)
        assert offered.returncode == 255
        assert "Permission denied (publickey)" in offered.stderr

    def test_users_have_uids_and_homes_of_their_own(self, served: Cluster) -> None:
        seen = served.head.run(["ssh", "n1", "id -u; id -G; pwd"], user="alice").stdout
        assert seen == "6001\n6001\n/home/alice\n"
        assert served.head.run(["ssh", "bob@n2", "id -un"]).stdout == "bob\n"
        for other in ("bob", "root"):
            assert served.head.run(["ssh", f"{other}@n2", "true"], user="alice", check=False).returncode == 255
        assert served.head.run(["cat", "/root/.ssh/id_ed25519"], user="alice", check=False).returncode != 0
        assert served.head.run(["sh", "-c", "id -u; echo $HOME"], user="bob").stdout == "6002\n/home/bob\n"
        with pytest.raises(HostsError, match="no user 'carol'"):
            served.head.run(["true"], user="carol")

    def test_users_can_run_the_python_of_these_tests(self, served: Cluster) -> None:
        done = served["n1"].run([sys.executable, "-c", "import psutil; print(1)"], user="alice")
        assert done.stdout == "1\n"

    def test_files_are_copied_over_ssh(self, served: Cluster) -> None:
        served.head.path("/scratch/x").write_bytes(os.urandom(100_000))
        served.head.run(["scp", "-q", "/scratch/x", "n2:/scratch/y"])
        assert served["n2"].path("/scratch/y").read_bytes() == served.head.path("/scratch/x").read_bytes()

    def test_a_munge_credential_is_good_on_another_host(self, served: Cluster) -> None:
        credential = served.head.run(["munge", "-s", "word"], user="alice").stdout
        opened = served["n1"].run(["unmunge"], input=credential, user="bob").stdout
        assert "UID:             alice (6001)" in opened
        assert opened.endswith("word")

    def test_services_are_there_again_after_a_crash(self, served: Cluster) -> None:
        served.crash("n2")
        served.boot("n2")
        assert served.head.run(["ssh", "n2", "munge -n | unmunge | head -1"]).stdout.startswith(
            "STATUS:          Success"
        )


class TestCommand:
    def test_a_command_on_the_head_gives_the_exit_code(self) -> None:
        need()
        argv = [sys.executable, "-m", "tests.hosts", "up", "1", "--rate", RATE, "--", "sh", "-c", "hostname; exit 5"]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (5, "head\n")

    def test_orders_come_by_standard_input(self) -> None:
        need()
        orders = (
            "rate n1 20mbit; exec n1 tc qdisc; cut n1; heal n1; crash n1; exec n1 true; boot n1; exec n1 hostname; run"
        )
        argv = [sys.executable, "-m", "tests.hosts", "up", "1"]
        done = subprocess.run(
            argv, cwd=ROOT, input=orders.replace("; ", "\n"), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0
        assert "rate 20Mbit" in done.stdout
        assert done.stdout.endswith("\nn1\n")
        assert done.stderr == "tests.hosts: n1 is down: boot it first\ntests.hosts: 'run' is no order, see --help\n"


class TestWithoutRoot:
    def test_a_user_makes_a_cluster_in_a_user_namespace(self, tmp_path: Path) -> None:
        """As nobody, with the machine's Python: this run's may be in a directory of root's."""
        need()
        if os.geteuid() != 0:
            pytest.skip("it is what the other tests show when the run is not root's")
        if not Path("/usr/bin/python3").exists():
            pytest.skip("needs /usr/bin/python3")
        place = Path("/var/tmp") / f"hosts-{os.getpid()}"  # tmp_path is closed to others
        try:
            shutil.copytree(ROOT / "tests" / "hosts", place / "tests" / "hosts")
            shutil.copy(ROOT / "tests" / "__init__.py", place / "tests")
            done = subprocess.run(
                ["/usr/bin/python3", "-c", UNPRIVILEGED],
                cwd=place,
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            shutil.rmtree(place)
        assert done.returncode == 0, done.stderr
        seen = json.loads(done.stdout)
        if seen["lacks"]:
            pytest.skip(f"nobody's cluster needs {seen['lacks']}")
        assert seen == {
            "lacks": [],
            "names": ["head", "n1", "n2"],
            "text": "x",
            "ended": -15,
            "root": True,
            "ssh": True,
        }


UNPRIVILEGED = """
import json
from tests.hosts import Cluster
from tests.hosts.needs import missing
from tests.hosts.stream import one_stream
seen = {"lacks": missing(faults=True), "ssh": "root" in missing(sshd=True)[0]}
if not seen["lacks"]:
    with Cluster(2, rate="200mbit", loss="1%", delay="1ms") as cluster:
        one, two = cluster.nodes
        seen["names"] = [host.run(["hostname"]).stdout.strip() for host in cluster.hosts.values()]
        one_stream(one, two, 100_000)
        cluster.crash("n1")
        cluster.boot("n1")
        one.path("/scratch/x").write_text("x")
        seen["text"] = one.run(["cat", "/scratch/x"], cwd="/scratch").stdout
        with two.popen(["sleep", "1000"]) as process:
            process.terminate()
        seen["ended"] = process.returncode
        seen["root"] = two.run(["id", "-u"]).stdout == "0\\n"
print(json.dumps(seen))
"""


class TestNeeds:
    def test_what_is_missing_is_named_with_its_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(needs, "SYSTEM_PATH", str(tmp_path))
        monkeypatch.setenv("PATH", str(tmp_path))
        for name in needs.ALWAYS:
            (tmp_path / name).touch(mode=0o755)
        (tmp_path / "ssh").touch(mode=0o755)
        assert needs.missing(sshd=True, faults=True)[:2] == ["sshd (package openssh-server)", "nft (package nftables)"]

    @pytest.mark.parametrize(
        ("read", "text", "value"),
        [
            (network.bits, "200mbit", 200e6),
            (network.bits, "1.5 Gbit", 1.5e9),
            (network.seconds, "2ms", 0.002),
            (network.share, "0.5%", 0.005),
        ],
    )
    def test_settings_are_read(self, read: object, text: str, value: float) -> None:
        assert callable(read)
        assert read(text) == pytest.approx(value)


def leaf(pid: int) -> int:
    """The one process below `pid` that has no child: without root, nsenter is in between."""
    children = psutil.Process(pid).children(recursive=True)
    return children[-1].pid if children else pid


def packets(host: Host) -> int:
    """How many packets left by the host's first link."""
    lines = host.path("/proc/1/net/dev").read_text().splitlines()
    return int(next(line for line in lines if "eth0" in line).split(":")[1].split()[9])


def members_of(pid: int) -> list[psutil.Process]:
    """All processes of the cluster of a command, once its last one is there."""
    below = psutil.Process(pid).children(recursive=True)
    try:
        return below if "sleep" in [process.name() for process in below] else []
    except psutil.NoSuchProcess:  # so it is still being made
        return []


def machine() -> dict[str, object]:
    """What a cluster must leave as it found it: links, mounts, namespaces' names, processes of this run."""
    return {
        "links": sorted(os.listdir("/sys/class/net")),
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "names": sorted(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else [],
        "processes": sorted(process.pid for process in leaks.run_processes()),
    }
