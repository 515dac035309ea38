"""The launcher, its minders and its client together, with real processes.

A launched process's stdout is a pipe that all of its tree inherits: the pipe's end comes exactly when nothing of
the tree is left.
"""

import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.credentials import Authority, Claims, request_digest
from cluster.launch_client import LaunchClient, Launched
from cluster.launch_request import ACTION, MAX_PACKET, LaunchRequest, to_bytes, to_text
from staging.mover.errors import RefusedError, StageError, Unreachable

NODE = "n1"
ENV = {"PATH": os.defpath}
ROOT = os.getuid() == 0
NOBODY = 65534

# argv: the socket, the public key, optionally the uid to serve as
LAUNCHER = """
import os, socket, sys
from pathlib import Path
from cluster import launcher
sock = socket.socket(fileno=int(sys.argv[1]))
if len(sys.argv) > 3:
    launcher.preload()
    os.setuid(int(sys.argv[3]))
sys.exit(launcher.main(sock, node="n1", public_key_path=Path(sys.argv[2])))
"""

# prints "ready" once a grandchild in a session of its own, whose parent has ended, is there
TREE = """
import os, signal, sys
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(writer, b"x")
        signal.pause()
    os._exit(0)
os.read(reader, 1)
print("ready", flush=True)
"""
WAIT = "signal.pause()"


@pytest.fixture(scope="module")
def keys() -> Iterator[Path]:
    # not below pytest's own directory, which other users cannot enter
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


class Issuer:
    """Signs for a request; `changes` go into the claims."""

    def __init__(self, keys: Path) -> None:
        self._authority = Authority.ensure(keys)

    def __call__(self, request: LaunchRequest, **changes: Any) -> str:
        now = time.time()
        claims = Claims(
            uid=os.getuid(),
            gid=os.getgid(),
            groups=tuple(os.getgroups()),
            action=ACTION,
            nodes=(NODE,),
            digest=request_digest(request.to_mapping()),
            issued=now,
            expires=now + 60,
            nonce=secrets.token_hex(16),
        )
        return self._authority.sign(replace(claims, **changes))


@pytest.fixture(scope="module")
def issue(keys: Path) -> Issuer:
    return Issuer(keys)


class Service:
    """A launcher process, and the client's end of its socket."""

    def __init__(self, keys: Path, *options: str) -> None:
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(10)
        key = str(Authority.public_key_path(keys))
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(theirs.fileno()), key, *options],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
        )
        theirs.close()

    def close(self) -> None:
        self.sock.close()
        assert self.process.wait(10) in (0, -signal.SIGKILL)


Serve = Callable[..., Service]


@pytest.fixture
def serve(keys: Path, issue: Issuer) -> Iterator[Serve]:
    services: list[Service] = []

    def start(*options: str) -> Service:
        services.append(Service(keys, *options))
        return services[-1]

    yield start
    for service in services:
        service.close()


@pytest.fixture(scope="module")
def shared(keys: Path, issue: Issuer) -> Iterator[LaunchClient]:
    """A client of a launcher that the tests which do not harm it share."""
    service = Service(keys)
    service.sock.settimeout(None)
    client = LaunchClient(service.sock)
    yield client
    client.close()
    service.close()


class Process:
    """A launch with pipes; stdin is empty."""

    def __init__(self, client: LaunchClient, request: LaunchRequest, credential: str) -> None:
        with open(os.devnull, "rb") as stdin:
            out, out_writer = os.pipe()
            err, err_writer = os.pipe()
            self.stdout, self.stderr = os.fdopen(out, "rb", buffering=0), os.fdopen(err, "rb", buffering=0)
            try:
                self.launched: Launched = client.launch(request, credential, (stdin.fileno(), out_writer, err_writer))
            except StageError:
                self.close()
                raise
            finally:
                os.close(out_writer)
                os.close(err_writer)

    def finish(self) -> tuple[int, bytes, bytes]:
        """Status, output, errors; the output must have ended with the process."""
        status = self.launched.wait(10)
        result = status, self.stdout.read(), self.stderr.read()
        self.close()
        return result

    def wait_ready(self) -> None:
        assert self.stdout.readline() == b"ready\n"

    def assert_gone(self, within: float) -> None:
        """Fails unless the last process of the tree ends within so many seconds."""
        assert select.select([self.stdout], [], [], within)[0], "some of the tree is left"
        assert self.stdout.read(1) == b""
        self.close()

    def close(self) -> None:
        self.stdout.close()
        self.stderr.close()


def command(*argv: str, **changes: Any) -> LaunchRequest:
    return replace(LaunchRequest(argv, ENV, "/"), **changes)


def python(script: str) -> LaunchRequest:
    return command(sys.executable, "-c", script)


Run = Callable[[LaunchRequest], tuple[int, bytes, bytes]]


@pytest.fixture
def run(shared: LaunchClient, issue: Issuer) -> Run:
    return lambda request: Process(shared, request, issue(request)).finish()


# what a launched process finds


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", -15), ("kill -KILL $$", -9)]
)
def test_the_status_is_the_exit_code_or_minus_the_signal(run: Run, script: str, status: int) -> None:
    assert run(command("sh", "-c", script)) == (status, b"", b"")


def test_its_three_streams_are_the_descriptors_sent(shared: LaunchClient, issue: Issuer, tmp_path: Path) -> None:
    request = command("sh", "-c", "cat; echo oops >&2")
    for name, text in {"in": b"some\0text", "out": b"", "err": b""}.items():
        (tmp_path / name).write_bytes(text)
    with open(tmp_path / "in", "rb") as i, open(tmp_path / "out", "wb") as o, open(tmp_path / "err", "wb") as e:
        launched = shared.launch(request, issue(request), (i.fileno(), o.fileno(), e.fileno()))
        assert launched.wait(10) == 0
    assert (tmp_path / "out").read_bytes() == b"some\0text"
    assert (tmp_path / "err").read_bytes() == b"oops\n"


def test_no_other_descriptor_is_open_in_it(run: Run) -> None:
    # the fourth is the listing's own
    assert run(command("ls", "/proc/self/fd")) == (0, b"0\n1\n2\n3\n", b"")


def test_its_environment_and_arguments_are_exactly_those_asked_for_also_outside_utf_8(run: Run) -> None:
    odd = to_text(bytes(range(1, 256)))
    _, output, _ = run(command("env", "-0", env={"PATH": os.defpath, "ODD": odd, "ÄÖ": "ü"}))
    assert set(output.split(b"\0")) == {
        b"PATH=" + os.fsencode(os.defpath),
        b"ODD=" + to_bytes(odd),
        "ÄÖ=ü".encode(),
        b"",
    }
    assert run(command("printf", "%s", odd)) == (0, to_bytes(odd), b"")


def test_signals_are_as_in_a_fresh_process(run: Run) -> None:
    _, output, _ = run(command("cat", "/proc/self/status"))
    fields = dict(line.split(b":\t", 1) for line in output.splitlines())
    assert {fields[name] for name in (b"SigBlk", b"SigIgn", b"SigCgt", b"SigPnd", b"ShdPnd")} == {b"0" * 16}


def test_it_leads_a_session_and_a_group_of_its_own(shared: LaunchClient, issue: Issuer) -> None:
    request = python("import os; print(os.getpid(), os.getpgrp(), os.getsid(0))")
    process = Process(shared, request, issue(request))
    pid = process.launched.pid
    assert process.finish()[1].split() == [b"%d" % pid] * 3


def test_umask_and_working_directory(run: Run, tmp_path: Path) -> None:
    script = "umask; pwd"
    assert run(command("sh", "-c", script, cwd=str(tmp_path), umask=0o027))[1] == b"0027\n%s\n" % bytes(tmp_path)
    odd = tmp_path / to_text(b"\xff")
    os.mkdir(to_bytes(str(odd)))
    assert run(command("pwd", cwd=str(odd)))[1] == bytes(tmp_path) + b"/\xff\n"


def test_the_fallback_is_for_a_working_directory_that_does_not_exist(run: Run, tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    assert run(command("pwd", cwd=absent, fallback_cwd="/usr")) == (0, b"/usr\n", b"")
    assert run(command("pwd", cwd=absent)) == (126, b"", f"cannot enter {absent}: No such file or directory\n".encode())
    assert run(command("pwd", cwd="/dev/null", fallback_cwd="/usr")) == (
        126,
        b"",
        b"cannot enter /dev/null: Not a directory\n",
    )


def test_a_command_that_cannot_be_executed_fails_as_in_a_shell(run: Run, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\n")
    assert run(command("no-such-command")) == (127, b"", b"no-such-command: command not found\n")
    assert run(command("sh", env={"PATH": "/nowhere"})) == (127, b"", b"sh: command not found\n")
    assert run(command("/no/such")) == (127, b"", b"/no/such: No such file or directory\n")
    assert run(command(str(plain))) == (126, b"", f"{plain}: Permission denied\n".encode())
    plain.chmod(0o755)
    assert run(command(str(plain))) == (0, b"", b"")
    plain.write_bytes(b"\x7fnothing")
    assert run(command(str(plain))) == (126, b"", f"{plain}: Exec format error\n".encode())


def test_the_mover_runs_without_an_exec(run: Run) -> None:
    status, output, errors = run(LaunchRequest((), ENV, "/", kind="mover"))
    # its orders, on stdin, end before they begin
    assert (status, errors) == (5, b"")
    assert json.loads(output)["error"]["class"] == "Interrupted"


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_root_becomes_the_user_with_exactly_the_groups_of_the_claims(shared: LaunchClient, issue: Issuer) -> None:
    request = command("grep", "-E", "^(Uid|Gid|Groups|Cap(Eff|Prm))", "/proc/self/status")
    process = Process(shared, request, issue(request, uid=NOBODY, gid=60, groups=(7, 9)))
    found = {line.split()[0]: line.split()[1:] for line in process.finish()[1].splitlines()}
    assert found == {
        b"Uid:": [b"65534"] * 4,
        b"Gid:": [b"60"] * 4,
        b"Groups:": [b"7", b"9"],
        b"CapPrm:": [b"0" * 16],
        b"CapEff:": [b"0" * 16],
    }


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_a_user_s_directory_is_entered_as_the_user(shared: LaunchClient, issue: Issuer, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    request = command("pwd", cwd=str(tmp_path), fallback_cwd="/")
    process = Process(shared, request, issue(request, uid=NOBODY, gid=NOBODY, groups=()))
    status, _, errors = process.finish()
    assert (status, errors) == (126, f"cannot enter {tmp_path}: Permission denied\n".encode())


# credentials


def refusal(client: LaunchClient, request: LaunchRequest, credential: str) -> None:
    with pytest.raises(RefusedError):
        Process(client, request, credential)


def test_a_credential_for_something_else_is_refused(shared: LaunchClient, issue: Issuer, tmp_path: Path) -> None:
    request = command("touch", str(tmp_path / "made"))
    refusal(shared, request, issue(request, nodes=("n2",)))
    refusal(shared, request, issue(request, action="pcp"))
    refusal(shared, request, issue(request, expires=time.time() - 3600))
    refusal(shared, request, "rubbish")
    refusal(shared, request, issue(request)[:-9] + "AAAAAAAAA")
    changes: list[dict[str, Any]] = [
        {"argv": ("touch", "x")},
        {"env": {}},
        {"cwd": "/usr"},
        {"fallback_cwd": "/"},
        {"umask": 0o777},
        {"kind": "mover"},
    ]
    for change in changes:
        refusal(shared, request, issue(replace(request, **change)))
    assert not list(tmp_path.iterdir())


def test_a_credential_is_good_for_one_launch(shared: LaunchClient, issue: Issuer) -> None:
    request = command("true")
    credential = issue(request)
    assert Process(shared, request, credential).finish()[0] == 0
    refusal(shared, request, credential)


@pytest.mark.skipif(not ROOT, reason="needs root to start a launcher as another user")
def test_without_root_only_the_launcher_s_own_user_is_served(serve: Serve, issue: Issuer) -> None:
    service = serve(str(NOBODY))
    service.sock.settimeout(None)
    client = LaunchClient(service.sock)
    request = command("id", "-u")
    with pytest.raises(RefusedError, match=f"for uid {NOBODY} only, not for 0"):
        Process(client, request, issue(request, uid=0))
    assert Process(client, request, issue(request, uid=NOBODY)).finish() == (0, b"65534\n", b"")
    client.close()


# ends


def test_daemons_are_gone_when_the_end_is_reported(run: Run) -> None:
    assert run(python(TREE + "sys.exit(3)")) == (3, b"ready\n", b"")


def test_kill_takes_the_whole_tree(shared: LaunchClient, issue: Issuer) -> None:
    request = python(TREE + WAIT)
    process = Process(shared, request, issue(request))
    process.wait_ready()
    process.launched.kill()
    assert process.finish() == (-9, b"", b"")
    process.launched.kill()
    process.launched.signal(15)


def test_a_signal_reaches_the_process(shared: LaunchClient, issue: Issuer) -> None:
    request = command("sleep", "60")
    process = Process(shared, request, issue(request))
    process.launched.signal(signal.SIGHUP)
    assert process.finish() == (-signal.SIGHUP, b"", b"")


@pytest.fixture
def tree(serve: Serve, issue: Issuer) -> Iterator[tuple[Service, LaunchClient, Process]]:
    """A launcher of its own with a tree that waits."""
    service = serve()
    service.sock.settimeout(None)
    client = LaunchClient(service.sock)
    request = python(TREE + WAIT)
    process = Process(client, request, issue(request))
    process.wait_ready()
    yield service, client, process
    client.close()
    process.close()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_everything_dies_with_the_launcher(tree: tuple[Service, LaunchClient, Process]) -> None:
    service, _, process = tree
    service.process.kill()
    process.assert_gone(within=2)
    with pytest.raises(Unreachable):
        process.launched.wait(10)


def test_nothing_is_left_either_when_a_minder_is_killed(
    tree: tuple[Service, LaunchClient, Process], issue: Issuer
) -> None:
    _, client, process = tree
    os.kill(parent_of(process.launched.pid), signal.SIGKILL)
    assert process.launched.wait(10) == -9
    process.assert_gone(within=0)
    request = command("true")
    assert Process(client, request, issue(request)).finish()[0] == 0


def test_the_process_itself_dies_with_its_minder_even_without_a_launcher(serve: Serve, issue: Issuer) -> None:
    service = serve()
    service.sock.settimeout(None)
    client = LaunchClient(service.sock)
    request = command("sleep", "60")
    process = Process(client, request, issue(request))
    minder = parent_of(process.launched.pid)
    os.kill(minder, signal.SIGSTOP)
    service.process.kill()
    service.process.wait()
    os.kill(minder, signal.SIGKILL)
    process.assert_gone(within=2)
    client.close()


def test_when_the_client_leaves_the_launcher_kills_all_and_ends(tree: tuple[Service, LaunchClient, Process]) -> None:
    service, client, process = tree
    client.close()
    assert service.process.wait(10) == 0
    process.assert_gone(within=0)


def test_at_sigterm_the_launcher_kills_all_and_ends(tree: tuple[Service, LaunchClient, Process]) -> None:
    service, _, process = tree
    service.process.send_signal(signal.SIGINT)
    service.process.send_signal(signal.SIGHUP)
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(10) == 0
    process.assert_gone(within=0)


def test_fifty_launches_at_a_time(shared: LaunchClient, issue: Issuer) -> None:
    def one(number: int) -> int:
        request = command("sh", "-c", f"exit {number}")
        return Process(shared, request, issue(request)).finish()[0]

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(one, range(50))) == list(range(50))


# the socket


def rubbish(request: LaunchRequest, credential: str) -> list[bytes]:
    good = {"id": 7, "op": "launch", "credential": credential, **request.to_mapping()}
    messages: list[Any] = [
        [],
        {},
        {"id": None, "op": "launch"},
        {"id": True, "op": "kill"},
        {"id": 1.5, "op": "kill"},
        {"id": 7},
        {"id": 7, "op": "reboot"},
        {"id": 7, "op": ["kill"]},
        {"id": 7, "op": "signal"},
        {"id": 7, "op": "signal", "signal": 4096},
        {"id": 7, "op": "signal", "signal": "9"},
        {"id": 7, "op": "signal", "signal": 9, "grace": -1},
        {"id": 7, "op": "signal", "signal": 9, "grace": 1e9},
        {"id": 7, "op": "launch"},
        good | {"credential": 5},
        good | {"argv": {}},
        good,  # without descriptors
    ]
    packets = [json.dumps(message).encode() for message in messages]
    return [*packets, b"\0", b"\xff\xfe", b"[" * 100_000, b"1" * 100_000, b'"' + b"x" * MAX_PACKET + b'"']


def ask(service: Service, packet: bytes, fds: int = 0) -> dict[str, Any]:
    with open(os.devnull, "rb") as null:
        socket.send_fds(service.sock, [packet], [null.fileno()] * fds)
    answer: dict[str, Any] = json.loads(service.sock.recv(MAX_PACKET))
    return answer


def test_rubbish_is_refused_and_does_no_harm(serve: Serve, issue: Issuer) -> None:
    service = serve()
    request = command("true")
    for packet in rubbish(request, issue(request)):
        answer = ask(service, packet)
        assert (answer["event"], answer["error"]["class"]) == ("refused", "UsageError"), packet[:80]
    good = {"id": 7, "op": "launch", "credential": issue(request), **request.to_mapping()}
    for fds in (1, 2, 4, 200):
        assert ask(service, json.dumps(good).encode(), fds)["event"] == "refused"
    assert len(os.listdir(f"/proc/{service.process.pid}/fd")) < 12
    assert ask(service, json.dumps(good).encode(), 3)["event"] == "started"
    assert json.loads(service.sock.recv(MAX_PACKET)) == {"id": 7, "event": "ended", "status": 0}


def test_an_id_in_use_is_refused(serve: Serve, issue: Issuer) -> None:
    service = serve()
    request = command("sleep", "60")
    message = {"id": 1, "op": "launch", **request.to_mapping()}
    assert ask(service, json.dumps(message | {"credential": issue(request)}).encode(), 3)["event"] == "started"
    answer = ask(service, json.dumps(message | {"credential": issue(request)}).encode(), 3)
    assert answer["event"] == "refused"
    assert "not in use" in answer["error"]["message"]


def test_a_client_that_does_not_read_is_not_read_from_but_loses_nothing(serve: Serve) -> None:
    service = serve()
    sent = 0
    while select.select([], [service.sock], [], 0.2)[1]:
        service.sock.send(json.dumps({"id": sent, "op": "none"}).encode())
        sent += 1
    assert [json.loads(service.sock.recv(MAX_PACKET))["id"] for _ in range(sent)] == list(range(sent))


def wait_for_state(pid: int, state: str) -> None:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != state:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_signal_that_crosses_the_death_of_a_minder_does_no_harm(serve: Serve, issue: Issuer) -> None:
    service = serve()
    request = command("sleep", "60")
    message = {"id": 1, "op": "launch", "credential": issue(request), **request.to_mapping()}
    started = ask(service, json.dumps(message).encode(), 3)
    minder = parent_of(started["pid"])
    order = json.dumps({"id": 1, "op": "signal", "signal": int(signal.SIGWINCH)}).encode()
    os.kill(minder, signal.SIGSTOP)
    service.sock.send(order)
    assert ask(service, b"rubbish")["event"] == "refused"  # so the signal is on its way, and will stay unread
    service.process.send_signal(signal.SIGSTOP)
    wait_for_state(service.process.pid, "T")
    service.sock.send(order)
    os.kill(minder, signal.SIGKILL)
    wait_for_state(minder, "Z")
    service.process.send_signal(signal.SIGCONT)
    assert json.loads(service.sock.recv(MAX_PACKET)) == {"id": 1, "event": "ended", "status": -9}
    assert ask(service, b"rubbish")["event"] == "refused"


def test_start_forks_the_launcher_into_a_session_of_its_own(keys: Path, issue: Issuer) -> None:
    request = command("ls", "/proc/self/fd")
    script = f"""
import os, sys
from pathlib import Path
from cluster import launcher
from cluster.launch_client import LaunchClient
from cluster.launch_request import LaunchRequest
os.close(0)
pid, sock = launcher.start({NODE!r}, Path(sys.argv[1]))
client = LaunchClient(sock)
launched = client.launch(LaunchRequest({request.argv!r}, {ENV!r}, "/"), sys.argv[2], (0, 1, 2))
print(launched.wait(10), os.getsid(pid) == pid)
try:
    launcher.start({NODE!r}, Path(sys.argv[1]))
except Exception as error:
    print(error)
client.close()
print(os.waitpid(pid, 0)[1])
"""
    key = str(Authority.public_key_path(keys))
    done = subprocess.run([sys.executable, "-c", script, key, issue(request)], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        *("0", "1", "2", "3"),
        "0 True",
        "the launcher must be forked before any thread is started",
        "0",
    ], done.stderr


def test_the_launcher_has_one_thread_and_imports_little() -> None:
    script = (
        "import os, sys; from cluster import launcher; launcher.preload(); print(len(os.listdir('/proc/self/task')))"
    )
    script += "; print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    threads, modules = done.stdout.splitlines()
    assert threads == "1"
    assert set(modules.split()) & {"dask", "distributed", "tornado", "click", "rich", "ClusterShell"} == set()


def test_a_launcher_without_its_key_says_so(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from cluster import launcher
pid, sock = launcher.start("n1", Path(sys.argv[1]))
print(sock.recv(10), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "absent")], capture_output=True, text=True)
    assert done.stdout == "b'' 4\n"
    assert done.stderr == f"launcher: cannot read {tmp_path}/absent: No such file or directory\n"
