"""Which hosts `stage up --hosts` means."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.hosts import Host, find, parse
from staging.mover.errors import SourceError, UsageError


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("n[1-2]", [Host("n1", "n1"), Host("n2", "n2")]),
        ("n1,gpu", [Host("gpu", "gpu"), Host("n1", "n1")]),
        ("admin@n[1-2]", [Host("n1", "n1", "admin"), Host("n2", "n2", "admin")]),
        ("n1=10.0.0.1", [Host("n1", "10.0.0.1")]),
        ("n1 = root@fd00::1 ", [Host("n1", "fd00::1", "root")]),
        ("n[1-2]=root@10.0.0.[8-9]", [Host("n1", "10.0.0.8", "root"), Host("n2", "10.0.0.9", "root")]),
    ],
)
def test_the_forms_of_a_line(words: str, expected: list[Host]) -> None:
    assert parse([words]) == tuple(expected)


def test_a_file_keeps_its_order_and_may_have_comments(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("# ours\nz9\n\n  a[1-2]  # two\nb=10.0.0.1\n")
    assert [host.name for host in find(str(file))] == ["z9", "a1", "a2", "b"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("n1\nn[1-2]", "line 2: n1 is named twice"),
        ("n[1-3]=10.0.0.[1-2]", "line 1: 'n[1-3]=10.0.0.[1-2]' has 3 names and 2 addresses"),
        ("ok\nn1=", "line 2: 'n1=' gives no address"),
        ("n1=-oProxyCommand=x", "is not a host"),
        ("-x@n1", "is not a host"),
        ("n[1-", "line 1: 'n[1-' is not a node set"),
        ("../x", "cannot be the name of a node"),
        ("# nobody\n", "names no host"),
        ("n[1-5000]", "names 5000 hosts, the limit is 4096"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, words: str, said: str) -> None:
    file = tmp_path / "hosts"
    file.write_text(words)
    with pytest.raises(UsageError) as caught:
        find(str(file))
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(file))


def test_a_file_that_is_not_there_is_no_node_set(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no file"):
        find(str(tmp_path / "hosts"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not a text file"):
        find(str(tmp_path / "binary"))
