import heapq
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from staging.mover.errors import UsageError
from staging.plan.cost import BLOCK_SIZES, DEFAULT_LINK, MARGIN, SHAPES, Link, choose, choose_block, predict
from staging.plan.tree import CHAIN, DOUBLE_TREE, Shape, TreePlan, build

KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30
SLOW = Link(rate=25e6)  # 200 Mbit/s
FAST = Link(rate=1.25e9)  # 10 Gbit/s
ONE_MACHINE = Link(rate=5e9, cpu_rate=4e8, cores=2)

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


@pytest.mark.parametrize("shape", [CHAIN, *map(Shape.parse, ("2", "3", "8", "double", "trees:3"))], ids=str)
@pytest.mark.parametrize("n", [1, 2, 7, 14, 40])
@pytest.mark.parametrize("blocks", [16, 128])
def test_model_is_a_close_upper_bound_of_a_simulation_of_the_plan(shape: Shape, n: int, blocks: int) -> None:
    link = Link(rate=25e6, latency=1e-3, block_cpu=0, cpu_rate=1e18, setup=0)
    simulated = simulate(build("head", [f"n{i}" for i in range(n)], shape), blocks, 256 * KiB, link)
    predicted = predict(shape, n, blocks * 256 * KiB, 256 * KiB, link)
    # the simulation lets nobody wait for the few that have a child more than their uplink has room for
    fair = shape.stripes(n) / shape.copies(n) if shape.kind == "trees" else 1
    assert simulated * (1 - 1e-9) <= predicted <= simulated * (1 + 2 * shape.stripes(n) / blocks) / fair


@pytest.mark.parametrize("block", [64 * KiB, 256 * KiB, 512 * KiB])
def test_measured_times_at_200_megabit(block: int) -> None:
    line = 64 * MiB / SLOW.rate
    assert 1.0 <= predict(CHAIN, 8, 64 * MiB, block, SLOW) / line <= 1.12
    assert predict(Shape("tree", 2), 8, 64 * MiB, block, SLOW) / line == pytest.approx(2, rel=0.05)
    assert predict(Shape("tree", 8), 8, 64 * MiB, block, SLOW) / line == pytest.approx(8, rel=0.05)


def test_ten_thousand_nodes_take_disjoint_trees() -> None:
    shape, _, seconds = choose(10_000, 10 * GiB, FAST)
    assert shape.kind == "trees"
    assert seconds <= 1.1 * 10 * GiB / FAST.rate
    assert choose_block(CHAIN, 10_000, 10 * GiB, FAST)[1] > 2 * seconds


@pytest.mark.parametrize(("n", "size", "rate"), [(8, 64 * MiB, 25e6), (16, 128 * MiB, 12.5e6), (32, 128 * MiB, 6.25e6)])
def test_slow_links_take_what_reaches_the_line_in_small_blocks(n: int, size: int, rate: float) -> None:
    shape, block, seconds = choose(n, size, Link(rate=rate))
    assert shape == CHAIN or shape.kind == "trees"
    assert block <= 256 * KiB
    assert seconds <= 1.05 * size / rate


@pytest.mark.parametrize("n", [8, 32, 1000])
@pytest.mark.parametrize("link", [DEFAULT_LINK, SLOW, ONE_MACHINE])
def test_a_tiny_file_takes_one_shallow_tree(n: int, link: Link) -> None:
    shape, _, seconds = choose(n, KiB, link)
    assert shape.kind == "tree"
    assert seconds < choose_block(CHAIN, n, KiB, link)[1]


def test_one_machine_s_cores_are_the_limit_whatever_the_shape() -> None:
    floor = 8 * 512 * MiB / ONE_MACHINE.cpu_rate / ONE_MACHINE.cores
    for shape in SHAPES:
        assert floor < choose_block(shape, 8, 512 * MiB, ONE_MACHINE)[1] < 1.2 * floor
    assert choose(8, 512 * MiB, ONE_MACHINE)[1] >= 512 * KiB


def test_a_shape_that_is_hardly_slower_is_taken_for_its_simplicity() -> None:
    assert predict(DOUBLE_TREE, 8, 64 * MiB, 64 * KiB, SLOW) < predict(CHAIN, 8, 64 * MiB, 64 * KiB, SLOW)
    assert choose(8, 64 * MiB, SLOW)[0] == CHAIN


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
    assert predict(shape, n, size + MiB, block, DEFAULT_LINK) >= seconds
    if shape.fanout <= 2:  # more trees may share out more nodes better
        assert predict(shape, n + 1, size, block, DEFAULT_LINK) >= seconds


@given(node_counts, sizes)
def test_choose_is_as_fast_as_every_option_but_for_the_margin(n: int, size: int) -> None:
    shape, block, seconds = choose(n, size)
    assert seconds == predict(shape, n, size, block, DEFAULT_LINK)
    for other in SHAPES:
        slack = 1 if other in SHAPES[: SHAPES.index(shape) + 1] else 1 + MARGIN
        assert all(seconds <= slack * predict(other, n, size, b, DEFAULT_LINK) for b in BLOCK_SIZES)


@given(node_counts, sizes, st.integers(1, 16 * MiB))
def test_choose_keeps_a_given_block_size(n: int, size: int, block: int) -> None:
    shape, kept, seconds = choose(n, size, FAST, block)
    assert kept == block
    assert seconds == predict(shape, n, size, block, FAST)


@given(node_counts, sizes)
def test_blocks_shrink_as_a_chain_grows(n: int, size: int) -> None:
    assert choose_block(CHAIN, 2 * n, size)[0] <= choose_block(CHAIN, n, size)[0]


def test_block_size_trades_fill_against_work_per_block() -> None:
    assert choose_block(CHAIN, 100, GiB, Link(block_cpu=0))[0] == 64 * KiB
    assert choose_block(CHAIN, 8, GiB, Link(block_cpu=0.05))[0] == MiB
    assert [size & (size - 1) for size in BLOCK_SIZES] == [0] * len(BLOCK_SIZES)
    assert (BLOCK_SIZES[0], BLOCK_SIZES[-1]) == (64 * KiB, MiB)


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
