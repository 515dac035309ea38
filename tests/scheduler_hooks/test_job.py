"""scheduler_hooks.job: what a job is called on its nodes, what its processes see, and which nodes it gets."""

from __future__ import annotations

import posixpath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler_hooks.directives import parse
from scheduler_hooks.job import Job, JobNode, fit_nodes
from scheduler_hooks.jobscript import JobScript

NODES = (JobNode("n2", 0, "127.0.0.3", "/c/n2/root"), JobNode("n1", 1, "127.0.0.2", "/c/n1/root"))


def script(*directives: str) -> JobScript:
    parsed, problems = parse("\n".join(["#!/bin/bash", *(f"#STAGE {line}" for line in directives), ""]), "motif.sh")
    assert not problems
    return parsed


def job(*directives: str, nodes: tuple[JobNode, ...] = NODES) -> Job:
    return Job("41", "motif.sh", "ada", "/home/ada", nodes, script(*directives))


def test_every_process_sees_the_job_and_where_it_is() -> None:
    assert job().environment(NODES[1]) == {
        "STAGE_DIR": "/c/n1/root/scratch/stage-41",
        "STAGE_JOB_ID": "41",
        "STAGE_JOB_NAME": "motif.sh",
        "STAGE_NODELIST": "n2,n1",
        "STAGE_NNODES": "2",
        "STAGE_RANK": "1",
        "STAGE_NODE": "n1",
    }


def test_the_scratch_directory_is_the_jobs_own_or_the_one_named() -> None:
    assert job().scratch(NODES[0]) == "/scratch/stage-41"
    assert job("scratch /fast/%u/%j-%n").scratch(NODES[1]) == "/fast/ada/41-1"


def test_relative_paths_on_the_nodes_side_are_inside_it_and_absolute_ones_are_not() -> None:
    assert job().on_node(NODES[0], "hits-%N.txt") == "/scratch/stage-41/hits-n2.txt"
    assert job().on_node(NODES[0], "log/") == "/scratch/stage-41/log/"
    assert job().on_node(NODES[0], "/tmp/%x") == "/tmp/motif.sh"


@given(st.text(st.sampled_from("./ab")))
def test_no_path_leads_out_of_an_embedded_nodes_root(path: str) -> None:
    real = job().real(NODES[0], path)
    assert posixpath.normpath(real).startswith("/c/n2/root")


def test_a_node_of_its_own_has_no_other_root() -> None:
    assert job().real(JobNode("node7", 0, "10.0.0.7"), "/tmp/x") == "/tmp/x"


def test_patterns_about_a_node_stay_where_no_node_is_meant() -> None:
    assert (job().values().node, job().values().rank) == (None, None)
    assert (job().values(NODES[1]).node, job().values(NODES[1]).rank) == ("n1", 1)


UP = ("n1", "n2", "n3")


@pytest.mark.parametrize(
    ("directive", "requested", "got"),
    [
        ((), None, UP),
        (("nodes 2",), None, ("n1", "n2")),
        (("nodes 3",), None, UP),
        (("nodes 4",), None, None),
        (("nodes n[2-3]",), None, ("n2", "n3")),
        (("nodes n[3-4]",), None, None),
        (("nodes 4",), 1, ("n1",)),
        (("nodes n[3-4]",), 2, ("n1", "n2")),
        ((), 4, None),
    ],
)
def test_the_command_lines_nodes_win_over_the_scripts(directive: Any, requested: int | None, got: Any) -> None:
    assert fit_nodes(script(*directive), requested, UP) == got


def test_where_the_scratch_is_is_told_with_the_nodes_folded() -> None:
    assert job().scratches(["n1", "n2"]) == ["/c/n[1-2]/root/scratch/stage-41"]
    assert job("scratch /fast/%N/x%n").scratches(["n1", "n2"]) == ["/c/n2/root/fast/n2/x0", "/c/n1/root/fast/n1/x1"]
    real = tuple(JobNode(f"node{number}", number, "10.0.0.7") for number in range(3))
    assert job(nodes=real).scratches(["node0", "node2"]) == ["node[0,2]:/scratch/stage-41"]
    assert job("scratch /s/%N", nodes=real).scratches(["node1"]) == ["node1:/s/node1"]
    assert job().scratches([]) == []
