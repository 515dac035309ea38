"""What a host does with what it is told, without ssh: the same command, with its input from a pipe."""

from __future__ import annotations

import datetime
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster import pki
from cluster.credentials import Authority
from cluster.kit import Kit
from cluster.layout import HeadInfo, Layout
from cluster.remote import command
from cluster.startup import NodeSpec

Told = dict[str, Any]
SPEC = NodeSpec("n1", "127.0.0.1", "")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("head"))
    Authority.ensure(layout.keys)
    pki.ensure(layout.keys, now=datetime.datetime.now(datetime.UTC))
    return layout


@pytest.fixture
def told(keys: Layout, tmp_path: Path) -> Told:
    """What a head that is gone would say."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    head = HeadInfo(1, f"tls://127.0.0.1:{port}", "127.0.0.1", port, os.geteuid(), "hosts")
    payload: Told = json.loads(Kit.read(keys, head).payload(SPEC, str(tmp_path)))
    return payload


def say(line: bytes, hang_up: bool = False) -> tuple[int, Told]:
    """Exit code and answer; the input ends with the line, or stays open as that of a session does."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(["/bin/sh", "-c", command("")], **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line)
        process.stdin.flush()
        if hang_up:
            process.stdin.close()
        answer = json.loads(process.stdout.readline())
    return process.returncode, answer


def error(told: Told) -> str:
    code, answer = say(json.dumps(told).encode() + b"\n")
    assert code == 1
    return f"{answer['error']['class']}: {answer['error']['message']}; {answer['error']['remedy']}"


def ours(told: Told) -> Path:
    return Path(told["parent"]) / f"longshore-{os.geteuid()}"


def other_version(told: Told) -> None:
    told["versions"]["distributed"] = "1.0"


def late(told: Told) -> None:
    told["time"] += 3600


def early(told: Told) -> None:
    told["time"] -= 90


def other_user(told: Told) -> None:
    told["head"]["uid"] += 1


def open_directory(told: Told) -> None:
    ours(told).mkdir()
    ours(told).chmod(0o777)


def linked_directory(told: Told) -> None:
    ours(told).symlink_to("/")


def no_directory(told: Told) -> None:
    told["parent"] += "/absent"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_version, "on this host; install the same version there, or give --python"),
        (late, "s behind this host's; set the clocks"),
        (early, "s ahead of this host's"),
        (other_user, f"you are uid {os.geteuid()} there and uid {os.geteuid() + 1} here; log in as the same user"),
        (open_directory, "others have access to"),
        (no_directory, "give another --node-dir"),
        (linked_directory, "is not a directory itself; move it away"),
    ],
)
def test_what_hinders_a_start_is_said_and_nothing_is_put_there(
    told: Told, change: Callable[[Told], None], said: str
) -> None:
    change(told)
    assert said in error(told)
    assert ours(told).is_symlink() or not ours(told).exists() or not os.listdir(ours(told))


def test_a_head_that_cannot_be_reached_is_named_and_nothing_stays(told: Told) -> None:
    said = error(told)
    assert f"cannot reach the head at 127.0.0.1 port {told['head']['doors']}: Connection refused" in said
    assert "--address" in said
    assert not ours(told).exists()


@pytest.mark.parametrize("line", [b"", b'{"versions":'])
def test_a_session_that_ends_starts_nothing(line: bytes) -> None:
    code, answer = say(line, hang_up=True)
    assert (code, answer["error"]["class"]) == (1, "TemporaryError")


def test_a_session_that_ends_before_the_node_has_joined_undoes_all(told: Told) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # a head that accepts and says nothing
        told["head"]["doors"] = deaf.getsockname()[1]
        code, answer = say(json.dumps(told).encode() + b"\n", hang_up=True)
    assert (code, answer["error"]["message"]) == (1, "the session ended before the node had joined")
    assert not ours(told).exists()


def test_an_interpreter_without_us_and_one_that_is_not_there(tmp_path: Path) -> None:
    for python, expected in (("/usr/bin/python3", 97), (str(tmp_path / "none"), 95)):
        if expected == 97 and not Path(python).exists():
            continue
        done = subprocess.run(["/bin/sh", "-c", command(python)], input=b"", capture_output=True, timeout=60)
        assert (done.returncode, done.stdout) == (expected, b"")


def test_stage_on_the_path_leads_to_its_interpreter(tmp_path: Path) -> None:
    """Where the interpreter of this host is not there; a login shell's odd quoting must not matter."""
    (tmp_path / "stage").write_text(f"#!{sys.executable}\n")
    (tmp_path / "stage").chmod(0o755)
    line = command("").replace(sys.executable, str(tmp_path / "absent"))
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["/bin/sh", "-c", line], input=b"", capture_output=True, timeout=60, env=environment)
    assert (done.returncode, json.loads(done.stdout)["error"]["class"]) == (1, "TemporaryError")
