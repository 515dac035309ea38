import subprocess
import sys
from collections.abc import Iterator

import ClusterShell.NodeSet
import pytest
from ClusterShell.NodeUtils import GroupResolver, GroupSource
from hypothesis import given
from hypothesis import strategies as st

from cluster.nodes import fold, normalise, parse, resolve_count
from staging.mover.errors import UsageError


@pytest.fixture
def _groups() -> Iterator[None]:
    """One group source, instead of those that the machine is configured with."""
    source = GroupSource("site", {"rack1": "n[1-3]", "slurm": "n[0001-0002]", "none": ""})
    ClusterShell.NodeSet.set_std_group_resolver(GroupResolver(source, illegal_chars=set("@,!&^*")))
    yield
    ClusterShell.NodeSet.set_std_group_resolver(None)


def padded(prefix: str, number: int, width: int) -> str:
    return f"{prefix}{number:0{width}d}"


numbers = st.one_of(st.integers(0, 120), st.integers(990, 1010), st.integers(9_990, 10_010))
one_dimension = st.builds(padded, st.sampled_from(["n", "node-", "gpu.", "r1x"]), numbers, st.integers(1, 5))
two_dimensions = st.builds(lambda name, port: f"{name}-ib{port}", one_dimension, st.integers(0, 3))


@given(st.sets(one_dimension | two_dimensions | st.sampled_from(["login", "head"]), min_size=1, max_size=40))
def test_fold_and_parse_are_inverse(names: set[str]) -> None:
    expanded = parse(fold(names))
    assert set(expanded) == names
    assert len(expanded) == len(names)


def test_the_order_does_not_depend_on_how_the_set_is_written() -> None:
    assert parse("node[01-02],gpu3,n[10,9]") == ("gpu3", "n9", "n10", "node01", "node02")
    assert parse(" n10,node02,n9,node[01-02],gpu3 ") == parse("node[01-02],gpu3,n[10,9]")
    assert parse("n[1-5]!n[2-3]") == ("n1", "n4", "n5")


@st.composite
def ranges(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A range as Slurm prints it (`%0*d` for both ends), most often near a power of ten, and its numbers."""
    width = draw(st.integers(1, 5))
    low = max(0, 10 ** draw(st.integers(1, 5)) + draw(st.integers(-50, 20)))
    high = low + draw(st.integers(0, 60))
    step = draw(st.sampled_from([1, 1, 2, 7, 80]))
    text = f"{low:0{width}d}-{high:0{width}d}" + (f"/{step}" if step > 1 else "")
    return text, [f"{number:0{width}d}" for number in range(low, high + 1, step)]


@given(ranges(), ranges())
def test_the_normaliser_against_counting(first: tuple[str, list[str]], second: tuple[str, list[str]]) -> None:
    (one, ones), (two, twos) = first, second
    assert set(parse(f"n[{one},{two}]")) == {f"n{number}" for number in ones + twos}
    assert set(parse(f"n[{one}]-ib[1-2],x[{two}]y")) == {
        *(f"n{number}-ib{port}" for number in ones for port in (1, 2)),
        *(f"x{number}y" for number in twos),
    }


def test_the_normaliser_splits_at_the_power_of_ten_and_leaves_the_rest_alone() -> None:
    assert normalise("n[0001-10000]") == "n[0001-9999,10000-10000]"
    assert normalise("n[3,08-101,7]") == "n[3,08-99,100-101,7]"
    assert normalise("n[01-100/50]") == "n[01-99/50]"
    for spec in ("n[9998-10000]", "n[0998-1000]", "n[01-3]", "a,01-100,b", "n[01-100", "@rack01-100"):
        assert normalise(spec) == spec
    names = parse("n[0001-10000]")
    assert (len(names), names[0], names[-2:]) == (10_000, "n0001", ("n9999", "n10000"))


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ("gpu3,node[1-", "node[1-"),
        ("a,n[01-3],b", "n[01-3]"),
        ("a,n[5-1]", "n[5-1]"),
        ("a,n[x],b", "n[x]"),
        ("a,n[],b", "n[]"),
        ("n[1-3],", "n[1-3],"),
        ("a,b c", "b c"),
        ("a,-oProxyCommand=x", "-oProxyCommand=x"),
        ("a,..", ".."),
        ("a,x/y", "x/y"),
        ("a,b\nc", "b\nc"),
    ],
)
def test_a_bad_word_is_named_and_an_example_given(spec: str, word: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(spec)
    assert repr(word) in caught.value.message
    assert "node[01-08],gpu3" in caught.value.remedy


@pytest.mark.parametrize("spec", ["", "  ", "n[1-3]!n[1-3]", "@none"])
@pytest.mark.usefixtures("_groups")
def test_an_empty_set_is_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="no node is"):
        parse(spec)


@pytest.mark.usefixtures("_groups")
def test_groups_are_resolved() -> None:
    assert parse("@rack1!n2") == ("n1", "n3")
    assert parse("@site:slurm,gpu1") == ("gpu1", "n0001", "n0002")


@pytest.mark.usefixtures("_groups")
def test_an_unknown_group_source_is_named() -> None:
    with pytest.raises(UsageError, match=r"^'@nowhere:rack1' names a group source"):
        parse("n1,@nowhere:rack1")


def test_folding_reads_no_groups() -> None:
    assert fold(["n2", "n1", "n10", "gpu"]) == "gpu,n[1-2,10]"
    assert fold([]) == ""


def test_names_for_a_cluster_without_any() -> None:
    assert resolve_count(3) == ("n1", "n2", "n3")
    with pytest.raises(UsageError):
        resolve_count(0)


def test_the_import_brings_no_engine() -> None:
    script = "import sys, cluster.nodes; print([name for name in sys.modules if name.startswith('ClusterShell.')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "ClusterShell.NodeSet" in done.stdout
    assert "ClusterShell.Task" not in done.stdout
