import pytest

from staging.progress import Progress
from staging.wording import event_line, failure_line, human_amount, progress_line, start_line

START = {
    "type": "transfer-start",
    "transfer": "in:1",
    "what": "genome.fa",
    "direction": "in",
    "nodes": ["n1", "n2"],
    "addresses": {},
    "files": 1,
    "bytes": 2 << 30,
    "method": "tree",
    "detail": "chain",
}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "genome.fa: 1 file, 2.0 GiB to 2 nodes by tree (chain)"),
        ({"nodes": ["n1"], "detail": ""}, "genome.fa: 1 file, 2.0 GiB to 1 node by tree"),
        ({"bytes": 0, "files": 0}, "genome.fa: 0 files, 0 B to 2 nodes by tree (chain)"),
        ({"direction": "out", "method": "ticket"}, "genome.fa: 1 file, 2.0 GiB from 2 nodes by ticket (chain)"),
        ({"direction": "out", "bytes": 0, "files": 0, "detail": ""}, "genome.fa: from 2 nodes by tree"),
        ({"what": "a\nb"}, "a\\nb: 1 file, 2.0 GiB to 2 nodes by tree (chain)"),
    ],
)
def test_start_line(changes, line):
    assert start_line({**START, **changes}) == line


def test_amount_counts_replicas_only_where_each_node_has_one():
    assert human_amount("in", 1024, 4) == human_amount("copy", 1024, 4) == "4 x 1.0 KiB"
    assert human_amount("in", 1024, 1) == human_amount("out", 1024, 4) == "1.0 KiB"


def test_failure_line_is_one_line():
    error = {"class": "SpaceError", "message": "cannot write a\nb: full", "remedy": "free space"}
    event = {"type": "node-failed", "transfer": "in:1", "node": "n2", "error": error, "partial": True}
    wanted = "a: n2 failed: cannot write a\\nb: full; free space"
    assert failure_line("a", event) == f"{wanted} (a resumable partial replica is left there)"
    assert failure_line("a", {**event, "partial": False}) == wanted


def test_event_line_of_a_transfer_that_never_started_names_it_by_its_id():
    note = {"type": "note", "transfer": "in:9", "node": "n1", "message": "odd"}
    assert event_line(note, Progress(), 0.0) == "in:9: n1: odd"
    gone = {
        "type": "transfer-end",
        "transfer": "in:9",
        "bytes": 0,
        "seconds": 0.0,
        "digest": "",
        "ok": [],
        "failed": [],
    }
    assert event_line(gone, Progress(), 0.0) == ""


NOTE = {"type": "note", "transfer": "in:1", "node": "", "message": "odd"}
END = {"type": "transfer-end", "transfer": "in:1", "bytes": 5, "seconds": 2.0, "digest": "", "ok": [], "failed": []}


def done(node, fetched):
    amounts = {"bytes": 5, "fetched": fetched, "reused": 5 - fetched, "seconds": 1.0, "digest": ""}
    return {"type": "node-done", "transfer": "in:1", "node": node, **amounts}


@pytest.mark.parametrize(
    ("events", "last", "line"),
    [
        ([], NOTE, "genome.fa: odd"),
        ([done("n1", 0), done("n2", 0)], {"ok": ["n1", "n2"]}, "already there on all 2 nodes, nothing sent, 2.00 s"),
        ([done("n1", 0)], {"ok": ["n1"]}, "already there on 1 node, nothing sent, 2.00 s"),
        ([done("n1", 0)], {"ok": ["n1"], "failed": ["n2"]}, "done on 1 of 2 nodes, 5 B in 2.00 s"),
        ([done("n1", 0)], {"ok": ["n1"], "bytes": 0}, "done on 1 of 1 node, 0 B in 2.00 s"),
        ([], {"failed": ["n1", "n2"]}, "failed on all 2 nodes"),
        ([], {"failed": ["n1"]}, "failed on 1 node"),
    ],
)
def test_event_line(events, last, line):
    progress = Progress()
    last = last if "type" in last else {**END, **last}
    for event in (START, *events, last):
        progress.update(event, 0.0)
    assert event_line(last, progress, 0.0).removeprefix("genome.fa: ") == line.removeprefix("genome.fa: ")


def test_progress_line():
    progress = Progress()
    progress.update(START, 0.0)
    progress.update({"type": "progress", "transfer": "in:1", "node": "n1", "bytes": 0}, 0.0)
    progress.update({"type": "progress", "transfer": "in:1", "node": "n1", "bytes": 1 << 30}, 1.0)
    progress.update({"type": "ticket", "transfer": "in:1", "node": "n2", "state": "wait", "position": 4}, 1.0)
    assert progress_line(progress.snapshot(1.0)) == (
        "genome.fa: 25%, 1.0 GiB of 4.0 GiB, 1.0 GiB/s, eta 3.00 s, 0 of 2 nodes done, 1 queued (first at position 4)"
    )
    progress.update({**START, "transfer": "out:2", "direction": "out", "bytes": 0}, 1.0)
    error = {"class": "StageError", "message": "", "remedy": ""}
    progress.update({"type": "node-failed", "transfer": "in:1", "node": "n2", "error": error, "partial": False}, 1.0)
    assert progress_line(progress.snapshot(1.0)) == "2 transfers: 1.0 GiB, 1.0 GiB/s, 0 of 4 nodes done, 1 failed"


def test_the_percentage_is_not_rounded_up_to_100():
    progress = Progress()
    progress.update({**START, "nodes": ["n1"]}, 0.0)
    progress.update({"type": "progress", "transfer": "in:1", "node": "n1", "bytes": (2 << 30) - 1}, 0.0)
    assert progress_line(progress.snapshot(0.0)).startswith("genome.fa: 99%, ")
