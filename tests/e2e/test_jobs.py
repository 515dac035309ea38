"""stage run on a real cluster: what a job sees, what is staged for it and after it, how it ends, and what it leaves."""

from __future__ import annotations

import json
import os
import pwd
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.layout import Layout
from support.cli import Cli, Done
from support.leaks import with_word
from support.polling import until

NODES = ("n1", "n2", "n3", "n4")
USER = pwd.getpwuid(os.geteuid()).pw_name
Script = Callable[..., Path]


@pytest.fixture(autouse=True)
def nothing_left_on_the_nodes(cluster4: Layout) -> Iterator[None]:
    def on_nodes() -> set[str]:
        return {f"{node}:{name}" for node in NODES for name in os.listdir(cluster4.root(node) / "scratch")}

    before = on_nodes()
    yield
    assert on_nodes() == before


def tree(top: Path) -> dict[str, str]:
    return {str(path.relative_to(top)): path.read_text() for path in top.rglob("*") if path.is_file()}


# what a job sees ---------------------------------------------------------------------------------------------


def test_the_script_runs_once_on_the_first_node_where_it_was_submitted(
    here: Cli, cluster4: Layout, script: Script, tmp_path: Path
) -> None:
    path = script(
        "env | grep ^STAGE_; umask; pwd; ls -d $STAGE_DIR; echo to stderr >&2; stage each -N -w n1 -- sh -c umask"
    )
    saved = os.umask(0o037)
    try:
        done = here.stage("run", path, "--nodes", "3", "--progress", "none")
    finally:
        os.umask(saved)
    assert done.code == 0
    lines = done.out.splitlines()
    variables = dict(line.split("=", 1) for line in lines if line.startswith("STAGE_"))
    number = variables["STAGE_JOB_ID"]
    assert variables.pop("STAGE_DOOR") == str(cluster4.door("n1"))
    assert variables.pop("STAGE_CLUSTER") == str(cluster4.base)
    assert variables.pop("STAGE_KILL_WAIT") == "10"
    directory = f"{cluster4.root('n1')}/scratch/stage-{number}"
    assert variables == {
        "STAGE_DIR": directory,
        "STAGE_JOB_ID": number,
        "STAGE_JOB_NAME": "job.sh",
        "STAGE_NODELIST": "n1,n2,n3",
        "STAGE_NNODES": "3",
        "STAGE_RANK": "0",
        "STAGE_NODE": "n1",
    }
    assert lines[-4:] == ["0037", str(tmp_path), directory, "0037"]
    assert "to stderr" in done.err


def test_each_job_has_a_number_of_its_own(here: Cli, script: Script) -> None:
    path = script("echo $STAGE_JOB_ID")
    first, second = (here.stage("run", path, "--nodes", "1").out for _ in range(2))
    assert int(second) == int(first) + 1


def test_any_interpreter_will_do(here: Cli, script: Script) -> None:
    body = "import os, sys; print(sys.version_info.major, os.environ['STAGE_NODE'], sys.flags.isolated)"
    assert here.stage("run", script(body, "nodes 1", interpreter="/usr/bin/env python3")).out == "3 n1 0\n"
    isolated = script(body.replace("os.environ['STAGE_NODE']", "0"), "nodes 1", interpreter=f"{sys.executable} -I")
    assert here.stage("run", isolated).out == "3 0 1\n"


def test_a_script_need_be_neither_executable_nor_ascii(here: Cli, tmp_path: Path) -> None:
    path = tmp_path / "größe.sh"
    path.write_bytes("#!/bin/sh\n#STAGE nodes 1\necho grün ".encode() + b"\xff" + b' "$STAGE_JOB_NAME"\n')
    path.chmod(0o400)
    assert here.stage("run", path.name).out == "grün \udcff größe.sh\n"


# staging in and out ------------------------------------------------------------------------------------------


def test_inputs_are_there_and_outputs_come_back(here: Cli, script: Script, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a b").write_text("contents")
    (tmp_path / "one.txt").write_text("one")
    body = """
        cd $STAGE_DIR && find . -type f | sort | grep -v stage-script
        stage each -- sh -c 'mkdir -p $STAGE_DIR/log; cat $STAGE_DIR/in/"a b" > $STAGE_DIR/out-%N.txt'
        stage each -- sh -c 'echo %n > $STAGE_DIR/log/l'
    """
    path = script(
        body,
        "nodes 2",
        "in data/ in/",
        "in data whole",
        "in one.txt two.txt to=first",
        "out out-%N.txt results/",
        "out log/ logs-%N/",
        "out whole results/%x-%u-%j-%%-%n",
    )
    done = here.stage("run", path)
    assert done.code == 0, done.err
    assert done.out.splitlines() == ["./in/a b", "./two.txt", "./whole/data/a b"]
    number = re.findall(r"job (\d+): running", done.err)[0]
    stem = f"results/job.sh-{USER}-{number}-%"
    assert tree(tmp_path) == {
        "data/a b": "contents",
        "one.txt": "one",
        "job.sh": path.read_text(),
        "results/out-n1.txt": "contents",
        "results/out-n2.txt": "contents",
        "logs-n1/l": "0\n",
        "logs-n2/l": "1\n",
        f"{stem}-0/whole/data/a b": "contents",
        f"{stem}-1/whole/data/a b": "contents",
    }


def test_inputs_go_to_the_nodes_that_are_meant(here: Cli, script: Script, tmp_path: Path) -> None:
    for name in ("f", "part-n1", "part-n2", "part-n3"):
        (tmp_path / name).write_text(name)
    path = script(
        "stage each -- sh -c 'cd $STAGE_DIR; echo *'",
        "nodes 3",
        "in f first to=first",
        "in f rank to=rank:2",
        "in f set to=n[2-3]",
        "in part-%N part-%n",
    )
    done = here.stage("run", path)
    assert done.code == 0, done.err
    assert sorted(done.out.splitlines()) == ["n1: first part-0", "n2: part-1 set", "n3: part-2 rank set"]


def test_outputs_come_from_the_nodes_that_are_meant(here: Cli, script: Script, tmp_path: Path) -> None:
    path = script(
        "stage each -- sh -c 'echo %N > $STAGE_DIR/f'",
        "nodes 3",
        "out f first from=first",
        "out f last from=rank:2 via=direct",
        "out f some-%n from=n[2-3]",
    )
    assert here.stage("run", path).code == 0
    path.unlink()
    assert tree(tmp_path) == {"first": "n1\n", "last": "n3\n", "some-1": "n2\n", "some-2": "n3\n"}


def test_an_absolute_path_on_a_node_is_below_that_nodes_root(
    here: Cli, cluster4: Layout, script: Script, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("absolute")
    path = script("ls $STAGE_DIR", "nodes 2", "in f /tmp/abs/f", "out /tmp/../../tmp/abs/f back-%N")
    try:
        assert here.stage("run", path).code == 0
        assert [(cluster4.root(node) / "tmp" / "abs" / "f").read_text() for node in ("n1", "n2")] == ["absolute"] * 2
        assert (tmp_path / "back-n2").read_text() == "absolute"
    finally:
        for node in ("n1", "n2"):
            (cluster4.root(node) / "tmp" / "abs" / "f").unlink(missing_ok=True)
            (cluster4.root(node) / "tmp" / "abs").rmdir()


def test_the_scratch_directory_may_be_named(here: Cli, cluster4: Layout, script: Script) -> None:
    path = script("echo $STAGE_DIR; touch $STAGE_DIR/x", "nodes 1", "scratch /scratch/mine/%j-%u")
    done = here.stage("run", path)
    assert re.fullmatch(rf"{cluster4.root('n1')}/scratch/mine/\d+-{USER}\n", done.out)
    (cluster4.root("n1") / "scratch" / "mine").rmdir()


@pytest.mark.parametrize(
    ("ending", "code", "came"),
    [
        ("exit 0", 0, {"always", "success"}),
        ("exit 7", 7, {"always", "failure"}),
        ("kill -9 $$", 137, {"always", "failure"}),
    ],
)
def test_outputs_depend_on_how_the_job_ended_and_its_exit_code_is_ours(
    here: Cli, script: Script, tmp_path: Path, ending: str, code: int, came: set[str]
) -> None:
    outs = [f"out f {on} on={on}" for on in ("always", "success", "failure")]
    path = script(f"touch $STAGE_DIR/f\n{ending}", "nodes 1", *outs)
    assert here.stage("run", path).code == code
    assert set(os.listdir(tmp_path)) == {"job.sh", *came}


def test_an_output_that_is_not_there_is_said_and_the_others_come(
    here: Cli, cluster4: Layout, script: Script, tmp_path: Path
) -> None:
    path = script("stage each -w n1 -- touch $STAGE_DIR/f", "nodes 2", "out f f-%N")
    done = here.stage("run", path)
    (kept,) = (cluster4.root("n2") / "scratch").glob("stage-*")  # perhaps it is there under another name
    kept.rmdir()
    assert done.code == 3
    assert re.search(r"f: n2 failed: cannot read .*/f: No such file or directory", done.err)
    assert set(os.listdir(tmp_path)) == {"job.sh", "f-n1"}


def test_an_input_that_cannot_be_staged_keeps_the_job_from_running(
    here: Cli, cluster4: Layout, script: Script, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("x")
    in_the_way = cluster4.root("n2") / "tmp" / "file"
    in_the_way.write_text("mine")
    try:
        done = here.stage("run", script("echo ran", "nodes 2", "in f /tmp/file/f"))
    finally:
        in_the_way.unlink()
    (cluster4.root("n1") / "tmp" / "file" / "f").unlink()
    (cluster4.root("n1") / "tmp" / "file").rmdir()
    assert (done.code, done.out) == (3, "")
    assert re.search(r"f: n2 failed: .*/tmp/file is no directory", done.err)
    assert re.fullmatch(r"stage: job \d+ was not run: f failed on n2", done.err.splitlines()[-1])


# refused and dry ----------------------------------------------------------------------------------------------


def test_two_outputs_that_overwrite_each_other_are_refused(here: Cli, script: Script, tmp_path: Path) -> None:
    done = here.stage("run", script("echo ran", "out same results/"))
    assert (done.code, done.out) == (2, "")
    assert "4 nodes would write the same results/same; put %N in the destination name" in done.err
    assert os.listdir(tmp_path) == ["job.sh"]


@pytest.mark.parametrize(("words", "directives"), [(("--nodes", "5"), ()), ((), ("nodes n[4-5]",))])
def test_more_nodes_than_there_are_is_exit_5(here: Cli, script: Script, words: Any, directives: Any) -> None:
    done = here.stage("run", script("echo ran", *directives), *words)
    assert (done.code, done.out) == (5, "")
    assert "4 nodes up" in done.err


def test_a_scratch_directory_that_is_there_already_is_found_before_anything_is_done(
    here: Cli, cluster4: Layout, script: Script
) -> None:
    mine = cluster4.root("n2") / "scratch" / "mine"
    mine.mkdir()
    path = script("echo ran", "nodes 3", "scratch /scratch/mine")
    try:
        for done in (here.stage("check", path), here.stage("run", path)):
            assert (done.code, done.out) == (2, "")
            assert "job.sh:3: the scratch directory /scratch/mine is there already on n2; remove it there" in done.err
    finally:
        mine.rmdir()


def test_a_dry_run_prints_the_plan_and_does_nothing(
    here: Cli, cluster4: Layout, script: Script, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("12345")
    path = script("echo ran", "nodes n[2-3]", "in f /tmp/f", "out g-%N results/")
    done = here.stage("run", "--dry-run", path)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith("job job.sh on n[2-3], scratch ")
    assert lines[1].startswith("in   f -> n[2-3]:/tmp/f  5 B each, by tree (")
    assert [line.split(" -> ")[1] for line in lines[2:]] == ["results/  on success, by ticket"] * 2
    assert sorted(os.listdir(tmp_path)) == ["f", "job.sh"]
    assert all(os.listdir(cluster4.root(node) / "tmp") == [] for node in NODES)


# stage each ---------------------------------------------------------------------------------------------------


def each(here: Cli, script: Script, *commands: str, nodes: int = 3) -> list[Done]:
    """Run `stage each COMMAND` for each command in one job; how each of them ended."""
    say = "printf '\\nend %d\\n' $code; printf '\\nend\\n' >&2"
    body = "\n".join(f"stage each {command}; code=$?; {say}" for command in commands)
    done = here.stage("run", script(body), "--nodes", str(nodes), "--progress", "none")
    assert done.code == 0, done.err
    outs, errs = re.split(r"\nend (\d+)\n", done.out), done.err.split("\nend\n")
    ends = zip(outs[::2], outs[1::2], errs, strict=False)
    return [Done(int(code), out, err, 0) for out, code, err in ends]


def test_each_runs_on_every_node_with_its_own_names(here: Cli, script: Script) -> None:
    named, some, strange, nested = each(
        here,
        script,
        "-- sh -c 'echo %n %N %j %x %% $STAGE_RANK $STAGE_NODE; echo $STAGE_DIR >&2; exit 0'",
        "-w n[1,3] -- echo %n",
        "-w n[2,4] -- echo %n",
        "-w n2 -N -- stage each -N -w n1 -- printenv STAGE_NODE",
    )
    number = named.out.split()[3]
    assert sorted(named.out.splitlines()) == [f"n{n}: {n - 1} n{n} {number} job.sh % {n - 1} n{n}" for n in (1, 2, 3)]
    assert len(re.findall(r"^n(\d): .*/nodes/n\1/root/scratch/stage-", named.err, re.MULTILINE)) == 3
    assert sorted(some.out.splitlines()) == ["n1: 0", "n3: 2"]
    assert (strange.code, strange.out) == (2, "")
    assert "n4 is not a node of this job; choose from n[1-3]" in strange.err
    assert (nested.code, nested.out) == (0, "n1\n")


def test_each_labels_gathers_or_passes_on_what_is_said(here: Cli, script: Script) -> None:
    raw, gathered, much, silent = each(
        here,
        script,
        "-N -- echo same",
        "-b -- sh -c '[ %n = 1 ] && echo other || echo same'",
        "-- seq 20000",
        "-N -- cat",
    )
    assert raw.out == "same\n" * 3
    rule = "-" * 15
    assert sorted(gathered.out.split(f"{rule}\nn")) == ["", f"2\n{rule}\nother\n", f"[1,3]\n{rule}\nsame\n"]
    lines = much.out.splitlines()
    for node in ("n1", "n2", "n3"):
        own = [line.removeprefix(f"{node}: ") for line in lines if line.startswith(node)]
        assert own == [str(number) for number in range(1, 20001)]
    assert (silent.code, silent.out) == (0, "")  # processes have no input


def test_each_returns_the_highest_exit_code_and_names_the_nodes(here: Cli, script: Script) -> None:
    commands = {
        "-- sh -c 'exit %n'": (2, ["n2 ended with exit code 1", "n3 ended with exit code 2"]),
        "-- sh -c '[ %n = 1 ] && kill -15 $$; exit %n'": (
            143,
            ["n3 ended with exit code 2", "n2 ended with exit code 143"],
        ),
        "-w n1 -w n[2-3] sh -c '[ %n = 1 ] || exit 7'": (7, ["n[1,3] ended with exit code 7"]),
        "-w n1 -w n2 -- printf %%s -w": (0, []),
        "-- nonesuch-command": (127, ["n[1-3] ended with exit code 127"]),
    }
    for done, (code, lines) in zip(each(here, script, *commands), commands.values(), strict=True):
        assert done.code == code
        assert re.findall("^stage each: (.*)$", done.err, re.MULTILINE) == lines


# nowhere to print ----------------------------------------------------------------------------------------------


@pytest.fixture(params=["full", "gone"])
def nowhere(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """A descriptor that takes no output, and the exit code for that."""
    if request.param == "full":
        fd, code = os.open("/dev/full", os.O_WRONLY), 8
    else:
        reader, fd = os.pipe()
        os.close(reader)
        code = 1
    yield fd, code
    os.close(fd)


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_job_whose_words_have_no_place_to_go_still_brings_its_results_home(
    here: Cli, script: Script, tmp_path: Path, nowhere: tuple[int, int], words: tuple[str, ...]
) -> None:
    path = script("seq 100000; echo result > $STAGE_DIR/f; sleep 0.1; echo more", "nodes 1", "out f f")
    with here.start("stage", "run", *words, path, stdout=nowhere[0]) as running:
        done = running.wait()
    assert done.code == nowhere[1], done.err
    assert (tmp_path / "f").read_text() == "result\n"
    assert "Traceback" not in done.err
    assert re.fullmatch(r"stage: job \d+ ended well, but cannot write .*", done.err.splitlines()[-1])


def test_each_ends_its_processes_when_its_output_has_no_place_to_go(
    here: Cli, script: Script, nowhere: tuple[int, int]
) -> None:
    full = nowhere[1] == 8
    where = "stage each -- yes > /dev/full" if full else "stage each -- yes | true; exit ${PIPESTATUS[0]}"
    done = here.stage("run", script(where, "nodes 2"))
    assert done.code == nowhere[1], done.err
    assert "stage: cannot write what the processes say: " in done.err
    assert "Traceback" not in done.err
    until("the end of the processes", lambda: not with_word("yes"))


# json and signals ---------------------------------------------------------------------------------------------


def test_with_json_what_the_job_says_is_for_people(here: Cli, script: Script) -> None:
    done = here.stage("run", "--json", script("printf 'no end'; echo; printf '{}'", "nodes 1"))
    assert done.err == "no end\n{}"
    assert all("type" in json.loads(line) for line in done.out.splitlines())


def test_with_json_every_phase_is_told(here: Cli, script: Script, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    done = here.stage(
        "run", "--json", script("cp $STAGE_DIR/f $STAGE_DIR/g; exit 3", "nodes 1", "in f f", "out g g on=always")
    )
    assert done.code == 3
    assert [json.loads(line)["schema"] for line in done.out.splitlines()] == [1] * len(done.events())
    phases = [event["phase"] for event in done.of_type("phase")]
    assert phases == ["start", "stage-in", "run", "stage-out", "clean", "end"]
    assert [(event["node"], event["code"]) for event in done.of_type("exit")] == [("n1", 3)]
    last = done.events()[-1]
    assert (last["type"], last["exit"]) == ("error", 3)
    assert last["error"]["message"] == f"job {done.events()[0]['job']} ended with exit code 3"
    assert [event["direction"] for event in done.of_type("transfer-start")] == ["in", "out"]
    assert (tmp_path / "g").read_text() == "x"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_ends_the_job_with_everything_it_started(
    here: Cli, script: Script, number: signal.Signals, code: int
) -> None:
    mark = "31415.9"
    body = f"""
        trap '' TERM INT
        setsid sleep {mark} &
        stage each -- sh -c 'trap "" TERM; sleep {mark}' &
        while :; do mkdir -p $STAGE_DIR/a/$RANDOM; done
    """
    with here.start("stage", "run", "--kill-wait", "1", script(body, "nodes 2")) as running:
        until("the job's processes", lambda: len(with_word(mark)) >= 3)
        running.signal(number)
        done = running.wait()
    assert done.code == code
    until("the end of the job's processes", lambda: not with_word(mark))
    assert "scratch was not removed" not in done.err


SAVE = "trap 'sleep 0.3; echo saved; exit' TERM; echo ready; while :; do sleep 0.01; done"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_job_has_time_to_end_by_itself(here: Cli, script: Script, number: signal.Signals, code: int) -> None:
    each = f"stage each -- sh -c {shlex.quote(SAVE)}"
    with here.start("stage", "run", script(f"({SAVE}) &\n{each}", "nodes 2")) as running:
        left = {"ready\n", "n1: ready\n", "n2: ready\n"}
        running.lines_until(lambda line: left.discard(line) or not left)
        running.signal(number)
        done = running.wait()
    assert done.code == code
    assert sorted(line for line in done.out.splitlines() if "saved" in line) == ["n1: saved", "n2: saved", "saved"]
    assert "nothing was staged out, its scratch directories were removed" in done.err


def test_the_second_signal_kills_at_once_and_the_scratch_is_removed(here: Cli, script: Script) -> None:
    mark = "17320.5"
    body = f"trap 'echo asked' TERM; setsid sleep {mark} &\necho ready; while :; do sleep 0.01; done"
    with here.start("stage", "run", "--kill-wait", "3600", script(body, "nodes 2")) as running:
        running.lines_until(lambda line: line == "ready\n")
        running.signal(signal.SIGINT)
        running.lines_until(lambda line: line == "asked\n")
        running.signal(signal.SIGINT)
        done = running.wait()
    assert done.code == 130
    assert "tidying up; once more leaves at once" in done.err
    assert "its scratch directories were removed" in done.err
    until("the end of the job's processes", lambda: not with_word(mark))


def test_a_killed_stage_run_leaves_no_process(here: Cli, cluster4: Layout, script: Script) -> None:
    mark = "27182.8"
    with here.start("stage", "run", script(f"sleep {mark}", "nodes 1")) as running:
        until("the job's process", lambda: with_word(mark))
        running.signal(signal.SIGKILL)
        running.wait()
    until("the end of the job's process", lambda: not with_word(mark))
    for left in (cluster4.root("n1") / "scratch").glob("stage-*"):  # nobody is left who could have removed it
        (left / ".stage-script").unlink()
        left.rmdir()
