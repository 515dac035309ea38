import pytest

from staging.mover.errors import Interrupted, PartialError, SourceError, SpaceError, Unreachable
from staging.report import Report

GIB = 1 << 30
DIGEST = "9f86d081884c7d659a2feaa0c55ad015"


def start(transfer, what, nodes, *, direction="in", files=1, size=2 * GIB):
    return {
        "type": "transfer-start",
        "transfer": transfer,
        "what": what,
        "direction": direction,
        "nodes": list(nodes),
        "addresses": {},
        "files": files,
        "bytes": size,
        "method": "tree",
        "detail": "",
    }


def done(transfer, node, *, size=2 * GIB, reused=0):
    return {
        "type": "node-done",
        "transfer": transfer,
        "node": node,
        "bytes": size,
        "fetched": size - reused,
        "reused": reused,
        "seconds": 4.0,
        "digest": DIGEST,
    }


def failed(transfer, node, error, *, partial=False):
    return {"type": "node-failed", "transfer": transfer, "node": node, "error": error.to_wire(), "partial": partial}


def end(transfer, ok, bad=(), *, size=2 * GIB, seconds=4.0, digest=DIGEST):
    return {
        "type": "transfer-end",
        "transfer": transfer,
        "bytes": size,
        "seconds": seconds,
        "digest": digest,
        "ok": list(ok),
        "failed": list(bad),
    }


def report(*events):
    made = Report()
    for event in events:
        made.update(event)
    return made


def test_text():
    made = report(
        start("in:1", "genome.fa", ["n1", "n2", "n3", "n4"]),
        done("in:1", "n1"),
        done("in:1", "n2"),
        done("in:1", "n3", reused=1395864371),
        failed("in:1", "n4", SpaceError("cannot write /scratch/genome.fa: No space left on device"), partial=True),
        end("in:1", ["n1", "n2", "n3"], ["n4"]),
        start("in:2", "params/", ["n1"], files=12, size=4000),
        done("in:2", "n1", size=4000),
        end("in:2", ["n1"], size=4000, seconds=0.05),
        start("out:3", "hits-%N.txt", ["n1", "n2", "n3"], direction="out", files=3, size=0),
        done("out:3", "n1", size=1 << 20),
        done("out:3", "n2", size=2 << 20),
        done("out:3", "n3", size=3 << 20),
        end("out:3", ["n1", "n2", "n3"], size=6 << 20, seconds=2.0, digest=""),
    )
    assert made.text() == (
        "what         way  nodes            files        bytes    time        rate  digest\n"
        "genome.fa    in   n[1-3] (3 of 4)      1  3 x 2.0 GiB  4.00 s   1.2 GiB/s  9f86d081884c7d65\n"
        "params/      in   n1                  12      3.9 KiB  0.05 s  78.1 KiB/s  9f86d081884c7d65\n"
        "hits-%N.txt  out  n[1-3]               3      6.0 MiB  2.00 s   3.0 MiB/s  -\n"
        "genome.fa: n4 failed: cannot write /scratch/genome.fa: No space left on device; free space there, or choose"
        " another destination (a resumable partial replica is left there)\n"
        "genome.fa: n3: 1.3 GiB of 2.0 GiB were already there\n"
    )
    assert made.exit_code() == 3


def test_text_of_nothing_is_empty():
    assert report().text() == ""


def test_text_of_a_transfer_that_was_stopped():
    made = report(start("in:1", "a", ["n1", "n2", "n3"]), done("in:1", "n1"))
    assert made.text() == (
        "what  way  nodes        files  bytes  time  rate  digest\n"
        "a     in   n1 (1 of 3)      1      -     -     -  -\n"
        "a: n[2-3]: not finished\n"
    )


def test_text_of_a_transfer_that_failed_everywhere():
    made = report(
        start("in:1", "a", ["n1"]),
        failed("in:1", "n1", SourceError("cannot read a: Input/output error")),
        end("in:1", [], ["n1"], size=0, seconds=0.5, digest=""),
    )
    assert made.text() == (
        "what  way  nodes       files  bytes    time  rate  digest\n"
        "a     in   - (0 of 1)      1    0 B  0.50 s     -  -\n"
        "a: n1 failed: cannot read a: Input/output error\n"
    )


def test_nodes_that_reused_the_same_share_a_line():
    events = [done("in:1", node, reused=2 * GIB) for node in ("n1", "n2", "n3")]
    text = report(start("in:1", "a", ["n1", "n2", "n3"]), *events, end("in:1", ["n1", "n2", "n3"])).text()
    assert text.endswith("\na: n[1-3]: 2.0 GiB of 2.0 GiB each were already there\n")


def test_names_cannot_break_the_table():
    text = report(start("in:1", "a\n\x1b[2Jb\udcff", ["n1"]), done("in:1", "n1", reused=5), end("in:1", ["n1"])).text()
    assert len(text.splitlines()) == 3
    assert "a\\n\\x1b[2Jb\\xff  in" in text
    text.encode("utf-8")


def test_the_last_word_on_a_node_counts():
    made = report(start("in:1", "a", ["n1"]), failed("in:1", "n1", SpaceError("full")), done("in:1", "n1"))
    assert made.exit_code() == 0
    made.update(failed("in:1", "n1", SpaceError("full")))
    assert made.exit_code() == 8


def test_unknown_transfers_and_types_are_ignored():
    made = report(done("in:9", "n1"), {"type": "phase", "phase": "run"}, {"type": "new", "transfer": "in:9"})
    assert (made.text(), made.exit_code()) == ("", 0)


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([None, None], 0),
        ([None, SpaceError("full")], 3),
        ([SpaceError("full"), SpaceError("full too")], 8),
        ([SpaceError("full"), Unreachable("silent")], 3),
        ([Interrupted("stopped"), Unreachable("silent")], 5),
        ([SourceError("gone")], 4),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_exit_code(outcomes, code, apart):
    """The same over the nodes of one transfer as over transfers of a node each."""
    made = Report()
    names = {f"n{i}": f"in:{i if apart else 0}" for i in range(len(outcomes))}
    for transfer in dict.fromkeys(names.values()):
        made.update(start(transfer, "a", [node for node, of in names.items() if of == transfer]))
    for (node, transfer), error in zip(names.items(), outcomes, strict=True):
        made.update(done(transfer, node) if error is None else failed(transfer, node, error))
    assert made.exit_code() == code


def test_nodes_of_which_nothing_was_heard_count_as_interrupted():
    assert report(start("in:1", "a", ["n1", "n2"])).exit_code() == 5
    assert report(start("in:1", "a", ["n1", "n2"]), done("in:1", "n1")).exit_code() == 3


def test_nodes_that_failed_for_the_same_reason_share_a_line():
    nodes = ["n1", "n2", "n3", "n4"]
    errors = [SpaceError("full"), Unreachable("silent"), SpaceError("full"), SpaceError("full")]
    made = report(
        start("in:1", "a", nodes), *(failed("in:1", n, e) for n, e in zip(nodes, errors, strict=True)), end("in:1", [])
    )
    assert made.text().splitlines()[2:] == [
        "a: n[1,3-4] failed: full; free space there, or choose another destination",
        "a: n2 failed: silent; try again",
    ]


def test_the_failure_says_what_failed_where_with_the_exit_code():
    made = report(start("in:1", "a", ["n1", "n2"]), done("in:1", "n1"), done("in:1", "n2"))
    assert made.failure() is None
    for number in range(5):
        made.update(start(f"out:{number}", f"o{number}", ["n1", "n2", "n3"], direction="out"))
        made.update(done(f"out:{number}", "n2"))
    made.update(start("out:9", "p", ["n1", "n2"]))
    error = made.failure()
    assert str(error) == "o0 failed on n[1,3], o1 failed on n[1,3], o2 failed on n[1,3], 3 more failed"
    assert (type(error), error.exit_code) == (PartialError, 3)
    alone = report(start("in:1", "a", ["n1", "n2"]), *(failed("in:1", n, SpaceError("full")) for n in ("n1", "n2")))
    error = alone.failure()
    assert (str(error), type(error), error.exit_code) == ("a failed on all 2 nodes", SpaceError, 8)
