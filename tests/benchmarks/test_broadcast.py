"""The benchmarks on the test cluster: they run, with tiny sizes, and what is compared is compared to the last byte."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hosts.fixtures import need

ROOT = Path(__file__).resolve().parents[2]


def run(module: str, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", module, *words]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_same_is_names_and_bytes(tmp_path: Path) -> None:
    from benchmarks.rig import same

    for top in ("a", "b"):
        (tmp_path / top / "sub").mkdir(parents=True)
        (tmp_path / top / "sub" / "file").write_bytes(b"x" * 3_000_000)
    one, other = tmp_path / "a", tmp_path / "b"
    assert same(one, other)
    (other / "more").touch()
    assert not same(one, other)
    (other / "more").unlink()
    with open(other / "sub" / "file", "r+b") as file:
        file.seek(2_999_999)
        file.write(b"y")
    assert not same(one, other)
    (other / "sub" / "file").unlink()
    (other / "sub" / "file").symlink_to(one / "sub" / "file")
    assert not same(one, other)
    assert not same(one, tmp_path / "nothing")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_quick_run_answers_and_writes(tmp_path: Path) -> None:
    need(sshd=True)
    pytest.importorskip("matplotlib")
    done = run("benchmarks.broadcast", "--quick", "--only", "tiny", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "broadcast.json").read_text())
    assert {row["label"] for row in report["samples"] if row["runs"]} >= {"pcp", "scp loop"}
    assert [(row["id"], row["met"]) for row in report["results"]] == [("broadcast.3", None)]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_fault_is_survived_as_promised(tmp_path: Path) -> None:
    need(sshd=True, faults=True)
    words = ("--only", "mover killed", "--only", "flips", "--size", "32", "--out", str(tmp_path))
    done = run("benchmarks.faults", *words)
    assert done.returncode == 0, done.stderr + done.stdout
    report = json.loads((tmp_path / "faults.json").read_text())
    assert [row["broken"] for row in report["faults"]] == [[], []]
    assert "| relay flips bits |" in (tmp_path / "faults.md").read_text()
