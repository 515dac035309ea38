import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from staging.progress import TIME_CONSTANT, Progress, Rate, State

GIB = 1 << 30
ERROR = {"class": "SpaceError", "message": "full", "remedy": ""}


def start(nodes=("n1", "n2"), *, direction="in", size=1000, transfer="in:1"):
    return {
        "type": "transfer-start",
        "transfer": transfer,
        "what": "genome.fa",
        "direction": direction,
        "nodes": list(nodes),
        "addresses": {},
        "files": 1,
        "bytes": size,
        "method": "tree",
        "detail": "chain",
    }


def done(node, size, *, fetched=None, seconds=2.0, transfer="in:1"):
    fetched = size if fetched is None else fetched
    return {
        "type": "node-done",
        "transfer": transfer,
        "node": node,
        "bytes": size,
        "fetched": fetched,
        "reused": size - fetched,
        "seconds": seconds,
        "digest": "ab",
    }


def moved(node, size, transfer="in:1"):
    return {"type": "progress", "transfer": transfer, "node": node, "bytes": size}


def failed(node, transfer="in:1"):
    return {"type": "node-failed", "transfer": transfer, "node": node, "error": ERROR, "partial": False}


def end(ok, bad=(), transfer="in:1"):
    return {
        "type": "transfer-end",
        "transfer": transfer,
        "bytes": 1000,
        "seconds": 2.0,
        "digest": "ab",
        "ok": list(ok),
        "failed": list(bad),
    }


def fed(*events):
    """A Progress after `events`, which are (event, time) or an event at time 0."""
    progress = Progress()
    for item in events:
        progress.update(*(item if isinstance(item, tuple) else (item, 0.0)))
    return progress


def only(progress, now=0.0):
    (transfer,) = progress.snapshot(now).transfers
    return transfer


class TestRate:
    @given(
        st.lists(st.floats(0.01, 20), min_size=1, max_size=30),
        st.integers(1, 10**6),
        st.integers(0, 10**12),
    )
    def test_a_steady_flow_has_its_own_rate_however_it_is_sampled(self, gaps, per_second, already):
        rate, now = Rate(), 1000.0
        rate.update(already, now)
        elapsed = 0.0
        for gap in gaps:
            elapsed += gap
            rate.update(already + elapsed * per_second, now + elapsed)
        assert rate.at(now + elapsed) == pytest.approx(per_second, rel=1e-3)

    @given(st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 10**9)), max_size=30), st.floats(-100, 100))
    def test_is_finite_and_never_negative(self, samples, asked):
        rate, now = Rate(), 0.0
        for gap, size in samples:
            now += gap
            rate.update(size, now)
        assert math.isfinite(rate.at(asked))
        assert rate.at(asked) >= 0

    def test_a_change_of_pace_is_followed_with_the_time_constant(self):
        rate = Rate()
        for second in range(101):
            rate.update(second * 100, second)
        rate.update(100 * 100 + 1000 * TIME_CONSTANT, 100 + TIME_CONSTANT)
        assert rate.at(100 + TIME_CONSTANT) == pytest.approx(1000 - 900 / math.e, rel=1e-3)

    def test_falls_when_nothing_comes(self):
        rate = Rate()
        rate.update(0, 0.0)
        rate.update(100, 1.0)
        assert rate.at(1.0 + TIME_CONSTANT) == pytest.approx(100)
        assert rate.at(1.0 + 2 * TIME_CONSTANT) == pytest.approx(100 / math.e)

    def test_samples_of_the_same_time_are_taken_together(self):
        rate = Rate()
        for size, now in [(0, 0.0), (50, 1.0), (100, 1.0), (200, 2.0)]:
            rate.update(size, now)
        share = 1 - math.exp(-1 / TIME_CONSTANT)
        assert rate.at(2.0) == pytest.approx((50 * share * (1 - share) + 150 * share) / (1 - (1 - share) ** 2))

    def test_a_clock_that_is_set_back_is_followed(self):
        rate = Rate()
        for size, now in [(0, 5000.0), (100, 5001.0), (150, 1000.0), (250, 1001.0)]:
            rate.update(size, now)
        assert rate.at(1001.0) == pytest.approx(100)


class TestNodes:
    def test_begin_by_waiting(self):
        transfer = only(fed(start()))
        assert [(n.node, n.state, n.bytes, n.total, n.rate, n.eta) for n in transfer.nodes] == [
            ("n1", State.WAITING, 0, 1000, 0.0, None),
            ("n2", State.WAITING, 0, 1000, 0.0, None),
        ]

    def test_move_and_tell_when_they_will_be_done(self):
        node = only(fed(start(), (moved("n1", 100), 1.0), (moved("n1", 300), 2.0)), now=2.0).nodes[0]
        assert (node.state, node.bytes, node.rate) == (State.MOVING, 300, pytest.approx(200))
        assert node.eta == pytest.approx(3.5)
        assert node.fraction == pytest.approx(0.3)

    def test_queue_and_get_their_turn(self):
        ticket = {"type": "ticket", "transfer": "in:1", "node": "n1", "state": "wait", "position": 3}
        progress = fed(start(), ticket, moved("n1", 0))
        assert (only(progress).nodes[0].state, only(progress).nodes[0].position) == (State.QUEUED, 3)
        progress.update({**ticket, "state": "ok", "position": 0}, 1.0)
        assert only(progress).nodes[0].state is State.MOVING

    def test_done_is_final_and_the_rate_becomes_the_average_of_what_was_fetched(self):
        node = only(fed(start(), done("n1", 1000, fetched=600, seconds=2.0), (moved("n1", 7), 3.0))).nodes[0]
        assert (node.state, node.bytes, node.rate, node.eta) == (State.DONE, 1000, 300.0, 0.0)

    def test_failed_is_final_but_for_a_success(self):
        progress = fed(start(), moved("n1", 10), failed("n1"), (moved("n1", 20), 1.0))
        assert (only(progress).nodes[0].state, only(progress).nodes[0].bytes) == (State.FAILED, 10)
        progress.update(done("n1", 1000), 2.0)
        assert only(progress).nodes[0].state is State.DONE

    def test_an_empty_source_is_complete_from_the_start(self):
        node = only(fed(start(size=0))).nodes[0]
        assert (node.total, node.fraction, node.eta) == (0, 1.0, 0.0)


class TestTransfers:
    def test_sum_their_nodes(self):
        transfer = only(
            fed(start(), moved("n1", 0), moved("n2", 0), (moved("n1", 100), 1.0), (moved("n2", 300), 1.0)), 1.0
        )
        assert (transfer.bytes, transfer.total, transfer.rate) == (400, 2000, pytest.approx(400))
        assert transfer.eta == pytest.approx(4.0)

    def test_a_failed_node_is_left_out_so_that_the_rest_can_reach_the_end(self):
        transfer = only(fed(start(), moved("n1", 400), failed("n1"), done("n2", 1000)))
        assert (transfer.bytes, transfer.total, transfer.fraction) == (1000, 1000, 1.0)

    def test_the_rate_is_of_those_still_moving(self):
        assert only(fed(start(), done("n1", 1000))).rate == 0

    def test_an_output_of_several_nodes_has_one_total_and_its_nodes_have_none_until_done(self):
        progress = fed(start(direction="out", size=1500), done("n1", 500))
        transfer = only(progress)
        assert (transfer.bytes, transfer.total) == (500, 1500)
        assert [n.total for n in transfer.nodes] == [500, None]
        progress.update(failed("n2"), 1.0)
        assert only(progress).total == 500

    def test_an_output_with_a_failed_node_among_unfinished_ones_has_no_known_total(self):
        transfer = only(fed(start(["n1", "n2", "n3"], direction="out", size=1500), failed("n1"), moved("n2", 5)))
        assert (transfer.total, transfer.fraction, transfer.eta) == (None, None, None)

    def test_an_output_of_unknown_size(self):
        transfer = only(fed(start(["n1"], direction="out", size=0), moved("n1", 5)))
        assert (transfer.bytes, transfer.total, transfer.nodes[0].total) == (5, None, None)
        assert only(fed(start(["n1"], direction="out", size=70))).nodes[0].total == 70

    def test_that_ended_leave_the_snapshot_and_can_still_be_asked_for(self):
        progress = fed(start(), done("n1", 1000), end(["n1"], ["n2"]))
        assert progress.snapshot(0.0).transfers == ()
        transfer = progress.transfer("in:1", 0.0)
        assert [n.state for n in transfer.nodes] == [State.DONE, State.FAILED]
        assert progress.transfer("in:2", 0.0) is None


def test_the_whole_is_the_sum_of_the_transfers_under_way():
    progress = fed(start(), start(["n3"], transfer="in:2"), moved("n1", 10), moved("n3", 20, "in:2"))
    whole = progress.snapshot(0.0)
    assert [t.transfer for t in whole.transfers] == ["in:1", "in:2"]
    assert (whole.bytes, whole.total) == (30, 3000)
    progress.update(start(["n1", "n2"], direction="out", size=0, transfer="out:3"), 0.0)
    assert progress.snapshot(0.0).total is None


@pytest.mark.parametrize(
    "event",
    [
        {"type": "phase", "phase": "run"},
        {"type": "exit", "node": "n1", "code": 0},
        {"type": "of the future", "transfer": "in:1", "node": "n1"},
        moved("n9", 5),
        moved("n1", 5, transfer="in:9"),
    ],
)
def test_what_is_not_known_changes_nothing(event):
    progress = fed(start())
    before = progress.snapshot(1.0)
    progress.update(event, 1.0)
    assert progress.snapshot(1.0) == before


def test_snapshots_do_not_change_afterwards():
    progress = fed(start())
    before = only(progress)
    progress.update(moved("n1", 10), 1.0)
    assert before.nodes[0].bytes == 0
    with pytest.raises(AttributeError):
        before.bytes = 5
