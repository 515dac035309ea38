"""The `stage` command without a cluster: its subcommands, `stage check`, and what is refused before anything starts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.layout import Layout
from scheduler_hooks.commands.common import assumed_nodes
from scheduler_hooks.directives import parse
from scheduler_hooks.stage import COMMANDS
from staging.mover.errors import UsageError
from support.cli import Cli

Make = Callable[[Layout | None], Cli]


@pytest.fixture
def alone(cli: Make) -> Cli:
    """Where no cluster runs."""
    return cli(Layout(Path("/nonexistent")))


def write(directory: Path, *directives: str) -> Path:
    path = directory / "job.sh"
    path.write_text("\n".join(["#!/bin/sh", *(f"#STAGE {line}" for line in directives), "true", ""]))
    return path


def test_help_lists_every_subcommand(alone: Cli) -> None:
    done = alone.stage("--help")
    assert (done.code, done.err) == (0, "")
    for name in COMMANDS:
        assert re.search(rf"^  {name} +\S", done.out, re.MULTILINE), name


@pytest.mark.parametrize("words", [("nonesuch",), ("status", "--nonesuch"), ("up",), ("run",), ("each",), ("check",)])
def test_wrong_usage_is_one_line_and_exit_2(alone: Cli, words: tuple[str, ...]) -> None:
    done = alone.stage(*words)
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(r"stage: .+; see `stage.* --help`\n", done.err)


def test_check_finds_nothing_wrong(alone: Cli, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    write(tmp_path, "nodes 2", "in f f", "out r-%N results/")
    done = alone.stage("check", "job.sh")
    assert (done.code, done.out, done.err) == (0, "", "job.sh: 1 in, 1 out: all well\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "job.sh"]


def test_check_names_every_problem_with_its_line_and_remedy(alone: Cli, tmp_path: Path) -> None:
    (tmp_path / "genome.fa").touch()
    write(tmp_path, "nodes 2", "in genom.fa g", "inn x y", "out same results/", "out a /proc/nonesuch/b from=first")
    done = alone.stage("check", "job.sh")
    assert (done.code, done.out) == (2, "")
    lines = done.err.splitlines()
    assert [line.removeprefix("stage: ").split(":")[1] for line in lines[:3]] == ["3", "4", "5"]
    assert "genom.fa does not exist; write genome.fa" in lines[0]
    assert "unknown directive 'inn'; write in" in lines[1]
    assert "2 nodes would write the same results/same; put %N in the destination name" in lines[2]


def test_more_nodes_than_one_can_make_two_outputs_clash(alone: Cli, tmp_path: Path) -> None:
    write(tmp_path, "out same results/")
    assert alone.stage("check", "job.sh", "--nodes", "1").code == 0
    assert alone.stage("check", "job.sh", "--nodes", "2").code == 2


def test_check_needs_to_know_how_many_nodes_as_run_does(alone: Cli, tmp_path: Path) -> None:
    write(tmp_path)
    done = alone.stage("check", "job.sh")
    assert (done.code, done.err) == (
        2,
        "stage: job.sh does not say how many nodes it needs; give --nodes N, or #STAGE nodes N\n",
    )
    write(tmp_path, "nodes 0")
    assert "a job on 0 nodes is not possible" in alone.stage("check", "job.sh").err


def test_directories_that_land_beside_each_other_do_not_clash(alone: Cli, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "params").mkdir()
    write(tmp_path, "nodes 1", "in data x", "in params x")
    assert alone.stage("check", "job.sh").code == 0


def test_a_current_directory_that_was_deleted_is_said(alone: Cli, tmp_path: Path) -> None:
    job = write(tmp_path, "nodes 1")
    gone = tmp_path / "gone"
    gone.mkdir()
    words = f"rmdir {gone}; exec {sys.executable} -m scheduler_hooks.stage run {job}"
    done = subprocess.run(["sh", "-c", words], cwd=gone, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "stage: the current directory does not exist any more; cd to one that does\n",
    )


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_job_script_that_is_not_there_is_exit_4(alone: Cli, command: str) -> None:
    done = alone.stage(command, "nonesuch.sh")
    assert (done.code, done.out) == (4, "")
    assert done.err == "stage: cannot read the job script nonesuch.sh: No such file or directory\n"


def test_run_needs_to_know_how_many_nodes(alone: Cli, tmp_path: Path) -> None:
    write(tmp_path)
    done = alone.stage("run", "job.sh")
    assert (done.code, done.err) == (
        2,
        "stage: job.sh does not say how many nodes it needs; give --nodes N, or #STAGE nodes N\n",
    )


def test_run_checks_before_it_starts_anything(alone: Cli, tmp_path: Path) -> None:
    write(tmp_path, "nodes 2", "out same results/")
    done = alone.stage("run", "job.sh")
    assert (done.code, done.out) == (2, "")
    assert "put %N in the destination name" in done.err
    assert not (tmp_path / "results").exists()


def test_a_dry_run_needs_no_cluster_and_starts_none(alone: Cli, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    write(tmp_path, "nodes 2", "in f f", "out r-%N results/")
    done = alone.stage("run", "--dry-run", "job.sh")
    assert (done.code, done.err) == (0, "")
    assert "in   f -> n[1-2]:/scratch/stage-1/f  5 B each" in done.out
    assert done.out.count("\nout ") == 2
    assert not (tmp_path / "results").exists()


def test_a_dry_run_with_json_prints_events(alone: Cli, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    write(tmp_path, "nodes 2", "in f f", "out r-%N results/")
    done = alone.stage("run", "--dry-run", "--json", "job.sh")
    assert (done.code, done.err) == (0, "")
    assert [(event["type"], event["direction"], event["nodes"]) for event in done.events()] == [
        ("would-copy", "in", ["n1", "n2"]),
        ("would-copy", "out", ["n1"]),
        ("would-copy", "out", ["n2"]),
    ]
    assert len(done.out.splitlines()) == 3


def test_each_is_for_job_scripts(alone: Cli) -> None:
    done = alone.stage("each", "--", "true")
    assert (done.code, done.out) == (2, "")
    assert "`stage each` is for job scripts" in done.err


INSIDE = {"STAGE_NODELIST": "n1,n2", "STAGE_NODE": "n1", "STAGE_JOB_ID": "1", "STAGE_DIR": "/scratch"}


@pytest.mark.parametrize("missing", INSIDE)
def test_each_says_which_variable_is_missing(alone: Cli, missing: str) -> None:
    done = alone.stage("each", "true", env={**INSIDE, missing: ""})
    assert (done.code, done.out) == (2, "")
    assert done.err == f"stage: `stage each` is for job scripts: there is no {missing} here; use `stage run JOB`\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("-w", "", "true"), "no node is named; "),
        (("-w", "n1", "-w", "n3", "true"), "n3 is not a node of this job; choose from n[1-2]"),
        (("--no-lable", "true"), "No such option"),
        (("-x", "true"), "No such option"),
    ],
)
def test_each_refuses_what_is_written_wrong(alone: Cli, words: tuple[str, ...], line: str) -> None:
    done = alone.stage("each", *words, env=INSIDE)
    assert (done.code, done.out) == (2, ""), done.err
    assert line in done.err


@pytest.mark.parametrize("words", [("-h",), ("run", "-h"), ("each", "-h"), ("up", "-h")])
def test_help_has_a_short_name(alone: Cli, words: tuple[str, ...]) -> None:
    done = alone.stage(*words)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Usage: stage")
    assert done.out == alone.stage(*words[:-1], "--help").out


@pytest.mark.parametrize("words", [("status",), ("down",)])
def test_without_a_cluster_the_remedy_is_to_start_one(alone: Cli, words: tuple[str, ...]) -> None:
    done = alone.stage(*words)
    assert (done.code, done.out) == (5, "")
    assert "; start one with `stage up --local 4`" in done.err


@pytest.mark.parametrize("count", ["0", "-1", "251"])
def test_an_embedded_cluster_has_limits(cli: Make, tmp_path: Path, count: str) -> None:
    done = cli(Layout(tmp_path / "c")).stage("up", "--local", count)
    assert (done.code, done.out) == (2, "")
    assert "1 to 250 nodes" in done.err
    assert not (tmp_path / "c").exists()


def test_assumed_nodes_are_those_of_an_embedded_cluster() -> None:
    count, _ = parse("#!/bin/sh\n#STAGE nodes 2", "job.sh")
    named, _ = parse("#!/bin/sh\n#STAGE nodes gpu[3-4]", "job.sh")
    nothing, _ = parse("#!/bin/sh", "job.sh")
    assert assumed_nodes(count, None) == ("n1", "n2")
    assert assumed_nodes(count, 1) == assumed_nodes(nothing, 1) == ("n1",)
    assert assumed_nodes(named, None) == ("gpu3", "gpu4")
    with pytest.raises(UsageError, match="give --nodes N"):
        assumed_nodes(nothing, None)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_destination_one_may_not_write_is_refused(alone: Cli, tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0o500)
    write(tmp_path, "nodes 1", "out r shut/")
    done = alone.stage("check", "job.sh")
    assert done.code == 2
    assert "you may not write" in done.err
