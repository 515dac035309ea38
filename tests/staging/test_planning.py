"""What is decided before a copy: shape and block by the files' size, links, a topology's text; and how it is shown."""

from __future__ import annotations

import doctest
import json
import os
from pathlib import Path

import pytest

from staging import planning
from staging.mover.errors import UsageError
from staging.mover.manifest import choose_block as mover_block
from staging.plan.cost import BLOCK_SIZES, DEFAULT_LINK, choose
from staging.planning import Preview, decide, link_of, parse_link, read_topology

NODES = tuple(f"n{i}" for i in range(1, 9))
TOPOLOGY = "SwitchName=s1 Nodes=n[1-4]\nSwitchName=s2 Nodes=n[5-7]\n"


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "file"
    path.write_bytes(b"x" * (3 << 20))
    return str(path)


def test_a_file_s_shape_and_block_are_chosen_together(file: str) -> None:
    slow = link_of("10.0.0.1", 1e6)
    shape, block, _ = choose(8, 3 << 20, slow)
    assert decide([file], NODES, "auto", 0, slow, "") == (str(shape), block)
    assert decide([file], NODES, "auto", 8192, slow, "")[1] == 8192
    assert decide([file], NODES, "3", 0, slow, "")[0] == "tree:3"
    assert decide([file], NODES, "3", 0, slow, "")[1] in BLOCK_SIZES
    # the head, which sees the block, chooses the same again
    assert choose(8, 3 << 20, slow, block)[0] == shape


def test_what_only_a_scan_can_measure_stays_open(file: str, tmp_path: Path) -> None:
    for sources in ([str(tmp_path)], [file, str(tmp_path)], [str(tmp_path / "missing")]):
        assert decide(sources, NODES, "auto", 0, DEFAULT_LINK, "") == ("auto", 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1"])
def test_a_cluster_on_loopback_shares_this_machine_s_cores(host: str) -> None:
    assert link_of(host).cores == len(os.sched_getaffinity(0))
    assert link_of(host, 5e6).rate == 5e6


@pytest.mark.parametrize("host", ["10.0.0.1", "fe80::1", "head.example"])
def test_other_clusters_have_hosts_of_their_own(host: str) -> None:
    assert link_of(host) == DEFAULT_LINK
    assert link_of(host, 5e6).rate == 5e6


def test_examples_in_the_docstrings() -> None:
    result = doctest.testmod(planning)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("text", ["", "0", "-1", "fast", "10GB", "10MiB", "1e9", "nan", "9" * 40])
def test_nonsense_rates(text: str) -> None:
    with pytest.raises(UsageError, match="not the rate of a link; write bits per second"):
        parse_link(text)


def test_a_topology_is_read_and_checked(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text(TOPOLOGY)
    bad.write_text("SwitchName=a Switches=b")
    assert read_topology(str(good)) == TOPOLOGY
    assert read_topology(None) == ""
    with pytest.raises(UsageError, match=f"{bad}, line 1: switch b is not described"):
        read_topology(str(bad))
    with pytest.raises(UsageError, match=r"cannot read .*missing: No such file or directory"):
        read_topology(str(tmp_path / "missing"))
    bad.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="it is not text"):
        read_topology(str(bad))


def test_a_preview_says_and_draws_what_would_be_done(file: str) -> None:
    preview = Preview.of([file], False, NODES, "double", 0, link_of("10.0.0.1", 25e6), TOPOLOGY)
    text = preview.show(as_json=False)
    assert text.startswith("double, 8 nodes, depth ")
    assert "3.0 MiB to each in blocks of 64.0 KiB: about 0.1" in text
    assert "each switch is entered once per stripe" in text
    assert text.endswith("not in the topology, so taken as below one switch of their own: n8")


def test_a_preview_as_json(file: str) -> None:
    preview = Preview.of([file], False, NODES, "chain", 65536, link_of("10.0.0.1", 1e6))
    facts = json.loads(preview.show(as_json=True))
    assert (facts["type"], facts["schema"]) == ("plan", 1)
    assert (facts["shape"], facts["stripes"], facts["depth"], facts["block"]) == ("chain", 1, 8, 65536)
    assert (facts["bytes"], facts["rate"], facts["nodes"]) == (3 << 20, 1e6, [*NODES])
    assert facts["parents"] == [dict(zip(NODES, ("source", *NODES), strict=False))]
    assert facts["line"] == pytest.approx(3.146, abs=1e-3)
    assert facts["line"] < facts["seconds"] < 1.5 * facts["line"]


def test_a_preview_of_a_directory_has_the_mover_s_block(file: str) -> None:
    preview = Preview.of([os.path.dirname(file)], False, NODES, "auto", 0, DEFAULT_LINK)
    assert preview.block == mover_block(3 << 20, len(NODES))
