"""scheduler_hooks.dry_run: one line for each copy, with what, from where, to whom, how and how much."""

from __future__ import annotations

import json
from pathlib import Path

from scheduler_hooks.directives import parse
from scheduler_hooks.dry_run import as_events, plan, render
from scheduler_hooks.job import Job, JobNode

S = "/scratch/stage-7"
DIRECTIVES = """#!/bin/sh
#STAGE in genome.fa genome.fa
#STAGE in params/ params/ to=first via=direct
#STAGE in part-%N part
#STAGE out hits-%N.txt results/
#STAGE out log/ logs-%N/ from=rank:1 on=always via=direct
"""


def test_each_copy_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "p").write_bytes(b"x" * 3000)
    (tmp_path / "genome.fa").write_bytes(b"y" * 5000)
    for name in ("n1", "n2", "n3"):
        (tmp_path / f"part-{name}").write_bytes(b"z")
    script, problems = parse(DIRECTIVES, "job.sh")
    assert not problems
    nodes = tuple(JobNode(f"n{number}", number - 1, f"127.0.0.{number + 1}") for number in (1, 2, 3))
    planned = plan(Job("7", "job.sh", "ada", str(tmp_path), nodes, script))
    text = render(planned)
    head, genome, params, *rest = text.splitlines()
    assert head == f"job job.sh on n[1-3], scratch {S}"
    assert genome.startswith(f"in   genome.fa -> n[1-3]:{S}/genome.fa  4.9 KiB each, by tree (")
    assert params == f"in   params/ -> n1:{S}/params/  2.9 KiB each, by direct"
    assert [line.split(",")[0] for line in rest[:3]] == [
        f"in   part-n{n} -> n{n}:{S}/part  1 B each" for n in (1, 2, 3)
    ]
    assert rest[3:] == [
        *(f"out  n{n}:{S}/hits-n{n}.txt -> results/  on success, by ticket" for n in (1, 2, 3)),
        f"out  n2:{S}/log/ -> logs-n2/  on always, by direct",
    ]
    assert text.endswith("\n")
    events = list(map(json.loads, as_events(planned).splitlines()))
    assert {(event["type"], event["schema"]) for event in events} == {("would-copy", 1)}
    assert [(event["direction"], event["source"], event["dest"], event["bytes"]) for event in events[:2]] == [
        ("in", "genome.fa", f"{S}/genome.fa", 5000),
        ("in", "params/", f"{S}/params/", 3000),
    ]
    assert (events[-1]["nodes"], events[-1]["on"], events[-1]["method"]) == (["n2"], "always", "direct")
