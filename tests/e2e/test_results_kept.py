"""Results that cannot be brought home are not removed with the scratch directory; the user is told where they are."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.layout import Layout, personal
from support import leaks
from support.cli import Cli
from support.polling import until

NODES = ("n1", "n2", "n3", "n4")
Script = Callable[..., Path]

WRITE = "stage each -- sh -c 'echo result of %N > $STAGE_DIR/f'"


@pytest.fixture
def scratches(cluster4: Layout) -> Iterator[Callable[[], dict[str, Path]]]:
    """The scratch directories that are there, by node; removed at the end."""

    def found() -> dict[str, Path]:
        places = {node: list((cluster4.root(node) / "scratch").glob("stage-*")) for node in NODES}
        return {node: paths[0] for node, paths in places.items() if paths}

    assert not found()
    yield found
    for path in found().values():
        shutil.rmtree(path)


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Path]:
    """Where private clusters are; the test removes what it had kept there."""
    assert not personal().exists()
    yield personal()
    assert not leaks.with_word(str(personal()))
    shutil.rmtree(personal(), ignore_errors=True)


def test_the_scratch_of_a_node_whose_output_failed_stays(
    here: Cli, cluster4: Layout, script: Script, scratches: Callable[[], dict[str, Path]], tmp_path: Path
) -> None:
    done = here.stage("run", script(f"{WRITE}\ntouch home-n2 home-n3", "nodes 4", "out f home-%N/f"))
    assert done.code == 3, done.err
    assert {node: (path / "f").read_text() for node, path in scratches().items()} == {
        "n2": "result of n2\n",
        "n3": "result of n3\n",
    }
    assert (tmp_path / "home-n4" / "f").read_text() == "result of n4\n"
    number = scratches()["n2"].name
    place = f"{cluster4.base}/nodes/n[2-3]/root/scratch/{number}"
    line = f"stage: outputs that did not come back are kept in {place}; copy what you need, then remove it"
    assert line in done.err.splitlines()


def test_with_json_the_last_phase_names_what_is_kept(
    here: Cli, script: Script, scratches: Callable[[], dict[str, Path]]
) -> None:
    done = here.stage("run", "--json", script(f"{WRITE}\ntouch home-n2", "nodes 2", "out f home-%N/f"))
    assert done.code == 3
    (end,) = [event for event in done.of_type("phase") if event["phase"] == "end"]
    assert end["kept"] == {node: str(path) for node, path in scratches().items()}
    assert list(end["kept"]) == ["n2"]
    last = done.events()[-1]
    assert (last["type"], last["exit"], last["error"]["class"]) == ("error", 3, "PartialError")
    assert last["error"]["message"] == f"job {end['job']} ended well, but f failed on n2"
    assert done.err.splitlines()[-1] == f"stage: {last['error']['message']}"


def test_a_full_destination_loses_nothing(
    here: Cli,
    script: Script,
    scratches: Callable[[], dict[str, Path]],
    tmp_path: Path,
    mounted: Callable[..., None],
) -> None:
    (tmp_path / "small").mkdir()
    mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m", "none")
    done = here.stage("run", script("head -c 4m /dev/zero > $STAGE_DIR/f", "nodes 1", "out f small/f"))
    assert done.code == 8, done.err
    assert (scratches()["n1"] / "f").stat().st_size == 4 << 20


def test_the_jobs_own_exit_code_wins_and_the_results_stay(
    here: Cli, script: Script, scratches: Callable[[], dict[str, Path]]
) -> None:
    path = script(f"{WRITE}\ntouch home-n1\nexit 7", "nodes 1", "out f home-%N/f on=always", "out g other on=success")
    assert here.stage("run", path).code == 7
    assert (scratches()["n1"] / "f").exists()


def test_outputs_that_are_not_due_keep_nothing(
    here: Cli, script: Script, scratches: Callable[[], dict[str, Path]]
) -> None:
    assert here.stage("run", script(f"{WRITE}\nexit 7", "nodes 2", "out f home-%N/f on=success")).code == 7
    assert scratches() == {}


def test_a_signal_during_the_staging_out_loses_nothing(
    here: Cli, script: Script, scratches: Callable[[], dict[str, Path]]
) -> None:
    path = script("head -c 400m /dev/zero | tr '\\0' x > $STAGE_DIR/f", "nodes 1", "out f home")
    with here.start("stage", "run", "--json", path) as running:
        running.lines_until(lambda line: '"progress"' in line and '"out:' in line)
        running.signal(signal.SIGTERM)
        done = running.wait()
    assert done.code == 143
    assert (scratches()["n1"] / "f").stat().st_size == 400 << 20
    assert "outputs that did not come back are kept in" in done.err


def test_keep_leaves_the_scratch_and_says_where(
    here: Cli, cluster4: Layout, script: Script, scratches: Callable[[], dict[str, Path]]
) -> None:
    done = here.stage("run", "--keep", script(WRITE, "nodes 2"))
    assert done.code == 0
    assert list(scratches()) == ["n1", "n2"]
    assert re.search(rf"^stage: the scratch is kept in {cluster4.base}/nodes/n\[1-2\]/root/", done.err, re.MULTILINE)


def test_a_private_cluster_leaves_the_results_and_later_runs_leave_them_too(
    cli: Callable[[Layout | None], Cli], script: Script, private: Path
) -> None:
    run = cli(None)
    path = script(f"{WRITE}\ntouch home-n2", "nodes 2", "out f home-%N/f")
    done = run.stage("run", "--json", path)
    assert done.code == 3
    (end,) = [event for event in done.of_type("phase") if event["phase"] == "end"]
    result = Path(end["kept"]["n2"], "f")
    assert result.read_text() == "result of n2\n"
    (base,) = private.iterdir()
    assert result.is_relative_to(base)
    assert f"copy what you need, then rm -r {base}" in done.err
    assert not list(base.rglob("*key*"))
    until("the end of its processes", lambda: not leaks.with_word(str(base)))
    assert run.stage("run", script("true", "nodes 1")).code == 0
    assert result.exists()
    shutil.rmtree(base)


@pytest.mark.slow
def test_a_private_cluster_whose_command_is_killed_while_it_stages_out_leaves_the_results(
    cli: Callable[[Layout | None], Cli], script: Script, private: Path
) -> None:
    path = script("head -c 400m /dev/zero | tr '\\0' x > $STAGE_DIR/f", "nodes 1", "out f home")
    with cli(None).start("stage", "run", "--json", path) as running:
        running.lines_until(lambda line: '"progress"' in line and json.loads(line)["transfer"].startswith("out:"))
        running.signal(signal.SIGKILL)
        running.wait()
    until("the end of the cluster", lambda: not leaks.with_word(str(private)))
    (result,) = private.glob("run-*/nodes/n1/root/scratch/stage-*/f")
    assert result.stat().st_size == 400 << 20
