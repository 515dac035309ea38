"""The mover on the oldest Python that it supports, with the standard library alone."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.movers import listing, make_odd_tree

OLDEST = "3.9"
PACKAGE = Path(__file__).parents[3]


def oldest_python() -> str | None:
    """An interpreter of that version that really starts."""
    versions = Path.home() / ".pyenv" / "versions"
    for found in [shutil.which(f"python{OLDEST}"), *map(str, versions.glob(f"{OLDEST}.*/bin/python3"))]:
        if found and subprocess.run([found, "-c", "pass"], capture_output=True, check=False).returncode == 0:
            return found
    return None


@contextmanager
def mover(python: str) -> Iterator[subprocess.Popen[str]]:
    # -S: no site-packages, so that it is the standard library alone
    with subprocess.Popen(
        [python, "-S", "-m", "staging.mover"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PACKAGE
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def tell(process: subprocess.Popen[str], **order: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str], name: str) -> dict[str, Any]:
    assert process.stdout is not None
    for line in process.stdout:
        event: dict[str, Any] = json.loads(line)
        assert event["event"] != "error", event
        if event["event"] == name:
            return event
    raise AssertionError(f"it ended before it said {name}")


def test_a_tree_is_copied_by_the_standard_library_alone(tmp_path: Path) -> None:
    python = oldest_python()
    if python is None:
        pytest.skip(f"no python{OLDEST} on this machine")
    make_odd_tree(tmp_path / "tree")
    member = {"transfer": secrets.token_hex(16), "key": secrets.token_hex(32), "host": "127.0.0.1", "root": ""}
    with mover(python) as source, mover(python) as sink:
        opening = {"sources": [os.fspath(tmp_path / "tree")], "contents": False, "block": 4096, "nodes": 1}
        tell(source, op="open", role="source", **opening, **member)
        opened = hear(source, "opened")
        assert opened["manifest"]["hash"] == "blake2b"
        place = {"dest": os.fspath(tmp_path / "copy"), "into": "auto", "parents": False, "preserve": True}
        tell(sink, op="open", role="sink", manifest=opened["manifest"], **place, **member)
        hear(sink, "opened")
        peer = ["source", *opened["endpoint"]]
        tell(sink, op="run", stripes=1, feeds=[{"stripe": 0, "peers": [peer]}], source=peer)
        hear(sink, "complete")
        tell(source, op="seal")
        tell(sink, op="root", digest=hear(source, "root")["digest"])
        hear(sink, "done")
        for process in (source, sink):
            tell(process, op="finish")
            assert process.wait(10) == 0
    assert listing(tmp_path / "copy" / "tree") == listing(tmp_path / "tree")
