import heapq
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from staging.mover.errors import UsageError
from staging.plan.cost import BLOCK_SIZES, DEFAULT_LINK, SHAPES, Link, choose, choose_block, predict
from staging.plan.tree import CHAIN, DOUBLE_TREE, Shape, TreePlan, build

KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30
SLOW = Link(rate=25e6)  # 200 Mbit/s
FAST = Link(rate=1.25e9)  # 10 Gbit/s

sizes = st.integers(0, 100 * GiB)
node_counts = st.integers(1, 5000)


def simulate(plan: TreePlan, blocks: int, block: int, link: Link) -> float:
    """Seconds until the last sink has the last block; an uplink sends one block at a time, first come first served."""
    uplink = dict.fromkeys([plan.source, *plan.feeds], 0.0)
    order = count()
    has = [(0.0, next(order), plan.source, index) for index in range(blocks)]
    now = 0.0
    while has:
        now, _, node, index = heapq.heappop(has)
        for child in plan.children(node)[index % plan.stripes]:
            uplink[node] = max(uplink[node], now) + block / link.rate
            heapq.heappush(has, (uplink[node] + link.latency, next(order), child, index))
    return now


@pytest.mark.parametrize("shape", [CHAIN, Shape("tree", 2), Shape("tree", 3), Shape("tree", 8), DOUBLE_TREE], ids=str)
@pytest.mark.parametrize("n", [1, 2, 7, 14, 40])
@pytest.mark.parametrize("blocks", [16, 128])
def test_model_is_a_close_upper_bound_of_a_simulation_of_the_plan(shape: Shape, n: int, blocks: int) -> None:
    link = Link(rate=25e6, latency=1e-3, block_cpu=0, cpu_rate=1e18, setup=0)
    simulated = simulate(build("head", [f"n{i}" for i in range(n)], shape), blocks, 256 * KiB, link)
    predicted = predict(shape, n, blocks * 256 * KiB, 256 * KiB, link)
    assert simulated * (1 - 1e-9) <= predicted <= simulated * (1 + 2 / blocks)


@pytest.mark.parametrize("block", [64 * KiB, 256 * KiB, 512 * KiB])
def test_measured_times_at_200_megabit(block: int) -> None:
    line = 64 * MiB / SLOW.rate
    assert 1.0 <= predict(CHAIN, 8, 64 * MiB, block, SLOW) / line <= 1.12
    assert predict(Shape("tree", 2), 8, 64 * MiB, block, SLOW) / line == pytest.approx(2, rel=0.05)
    assert predict(Shape("tree", 8), 8, 64 * MiB, block, SLOW) / line == pytest.approx(8, rel=0.05)


def test_ten_thousand_nodes_take_the_double_tree() -> None:
    shape, block, seconds = choose(10_000, 10 * GiB, FAST)
    chain = min(predict(CHAIN, 10_000, 10 * GiB, size, FAST) for size in BLOCK_SIZES)
    assert shape == DOUBLE_TREE
    assert seconds <= 1.1 * 10 * GiB / FAST.rate
    assert chain > 2 * seconds
    assert block == choose_block(10 * GiB, 10_000, FAST)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("link", [DEFAULT_LINK, SLOW, FAST])
def test_a_large_file_to_one_or_two_nodes_takes_the_chain(n: int, link: Link) -> None:
    assert choose(n, 10 * GiB, link)[0] == CHAIN


def test_a_small_file_to_many_nodes_takes_a_tree() -> None:
    assert choose(64, 64 * KiB)[0].kind == "tree"


@given(node_counts, sizes, st.sampled_from(SHAPES), st.sampled_from(BLOCK_SIZES))
def test_no_prediction_beats_the_line_or_gains_by_more_work(n: int, size: int, shape: Shape, block: int) -> None:
    seconds = predict(shape, n, size, block, DEFAULT_LINK)
    assert seconds > size / DEFAULT_LINK.rate
    assert predict(shape, n + 1, size, block, DEFAULT_LINK) >= seconds
    # the same where the other stripe had room for it
    assert predict(shape, n, size + MiB, block, DEFAULT_LINK) >= seconds


@given(node_counts, sizes)
def test_choose_is_at_least_as_fast_as_every_option(n: int, size: int) -> None:
    shape, block, seconds = choose(n, size)
    assert seconds == predict(shape, n, size, block, DEFAULT_LINK)
    assert all(seconds <= predict(s, n, size, b, DEFAULT_LINK) for s in SHAPES for b in BLOCK_SIZES)


@given(node_counts, sizes, st.integers(1, 16 * MiB))
def test_choose_keeps_a_given_block_size(n: int, size: int, block: int) -> None:
    shape, kept, seconds = choose(n, size, FAST, block)
    assert kept == block
    assert seconds == predict(shape, n, size, block, FAST)


@given(node_counts, sizes)
def test_blocks_shrink_as_a_chain_grows(n: int, size: int) -> None:
    assert choose_block(size, 2 * n, DEFAULT_LINK, CHAIN) <= choose_block(size, n, DEFAULT_LINK, CHAIN)


def test_block_size_trades_fill_against_work_per_block() -> None:
    assert choose_block(GiB, 100, Link(block_cpu=0)) == 64 * KiB
    assert choose_block(GiB, 8, Link(block_cpu=0.05)) == 4 * MiB
    assert [size & (size - 1) for size in BLOCK_SIZES] == [0] * len(BLOCK_SIZES)
    assert (BLOCK_SIZES[0], BLOCK_SIZES[-1]) == (64 * KiB, 4 * MiB)


@pytest.mark.parametrize(
    ("shape", "n", "size", "seconds"),
    [
        (CHAIN, 2, 1000, 2 * 0.1 + 2 * (0.001 + 0.01 + 0.003)),
        (Shape("tree", 3), 3, 1000, 4 * 0.1 + (0.003 + 0.01 + 2 * 0.003)),
        (DOUBLE_TREE, 3, 2000, 4 * 0.1 + 2 * (0.002 + 0.01 + 2 * 0.003)),
    ],
)
def test_a_single_round_by_hand(shape: Shape, n: int, size: int, seconds: float) -> None:
    link = Link(rate=1e6, latency=0.01, block_cpu=0.002, cpu_rate=1e6, setup=0.1)  # 3 ms of work a block and hop
    assert predict(shape, n, size, 1000, link) == pytest.approx(seconds)


def test_movers_that_share_a_cpu_are_bound_by_it() -> None:
    shared = Link(rate=1e10, cpu_rate=1e8, block_cpu=0)
    assert predict(CHAIN, 4, GiB, MiB, shared) == pytest.approx(GiB / 1e8, rel=0.01)


@pytest.mark.parametrize(("n", "size", "block"), [(0, 1, 1), (1, -1, 1), (1, 1, 0)])
def test_impossible_numbers(n: int, size: int, block: int) -> None:
    with pytest.raises(UsageError):
        predict(CHAIN, n, size, block, DEFAULT_LINK)


@pytest.mark.parametrize("figures", [{"rate": 0}, {"cpu_rate": 0}, {"latency": -1e-6}, {"rate": float("nan")}])
def test_impossible_links(figures: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Link(**figures)
