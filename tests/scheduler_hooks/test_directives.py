"""scheduler_hooks.directives: what a script's header is understood as, and how each mistake in it is worded."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scheduler_hooks.directives import parse
from scheduler_hooks.jobscript import JobScript, NodeRequest, StageIn, StageOut, Target

ALL = Target("all")


def read(*header: str) -> JobScript:
    """The script with these lines below #!, which hold no mistake."""
    script, problems = parse("\n".join(["#!/bin/bash", *header, "true"]), "job.sh")
    assert problems == []
    return script


def complaints(*header: str) -> list[tuple[int, str]]:
    """(line, "message; remedy") of each problem; the first header line is line 2."""
    _, problems = parse("\n".join(["#!/bin/bash", *header, "true"]), "job.sh")
    return [(problem.line, f"{problem.message}; {problem.remedy}") for problem in problems]


def test_a_whole_header() -> None:
    script = read(
        "# finds motifs",
        "",
        "#SBATCH --time=5",
        "#STAGE nodes 4",
        "#STAGE in  genome.fa  genome.fa",
        "#STAGE\tin params/ params/ to=first via=stripe",
        "  # an indented comment",
        "#STAGE out hits-%N.txt results/ from=rank:2 via=ticket on=failure",
        "#STAGE scratch /scratch/%u/%j",
    )
    assert script.name == "job.sh"
    assert script.text.endswith("\ntrue")
    assert script.nodes == NodeRequest(5, 4)
    assert script.scratch == "/scratch/%u/%j"
    assert script.inputs == (
        StageIn(6, "genome.fa", "genome.fa", ALL, "auto"),
        StageIn(7, "params/", "params/", Target("first"), "stripe"),
    )
    assert script.outputs == (StageOut(9, "hits-%N.txt", "results/", Target("rank", rank=2), "ticket", "failure"),)


def test_defaults() -> None:
    script = read("#STAGE out a b")
    assert script.outputs == (StageOut(2, "a", "b", ALL, "auto", "success"),)
    assert (script.inputs, script.scratch, script.nodes) == ((), None, None)


@pytest.mark.parametrize("via", ["auto", "tree", "stripe", "multicast", "direct"])
def test_each_method_of_in(via: str) -> None:
    assert read(f"#STAGE in a b via={via}").inputs[0].via == via


@pytest.mark.parametrize("via", ["auto", "ticket", "direct"])
@pytest.mark.parametrize("on", ["success", "failure", "always"])
def test_each_method_and_outcome_of_out(via: str, on: str) -> None:
    (out,) = read(f"#STAGE out a b on={on} via={via}").outputs
    assert (out.via, out.on) == (via, on)


@pytest.mark.parametrize(
    ("word", "target"),
    [
        ("all", ALL),
        ("first", Target("first")),
        ("rank:0", Target("rank")),
        ("rank:12", Target("rank", rank=12)),
        ("n3", Target("nodes", names=("n3",))),
        ("n[2-4]", Target("nodes", names=("n2", "n3", "n4"))),
        ("n1,gpu7", Target("nodes", names=("gpu7", "n1"))),
    ],
)
def test_targets(word: str, target: Target) -> None:
    assert read(f"#STAGE in a b to={word}").inputs[0].to == target
    assert read(f"#STAGE out a b from={word}").outputs[0].from_ == target


def test_named_nodes() -> None:
    assert read("#STAGE nodes n[1-3]").nodes == NodeRequest(2, 3, ("n1", "n2", "n3"))


@pytest.mark.parametrize(
    ("words", "src"),
    [
        ("'two words' b", "two words"),
        (r"two\ words b", "two words"),
        ('"it\'s" b', "it's"),
        ("a#1 b", "a#1"),
        ("'#1' b", "#1"),
        ("#1 b", "#1"),
        ("ke=y b", "ke=y"),
        ("./to=first b", "./to=first"),
        ("$HOME b", "$HOME"),
        ("../a b", "../a"),
        ("to=first a b", "a"),
        ("/etc/motd b", "/etc/motd"),
    ],
)
def test_words_are_split_as_by_a_shell(words: str, src: str) -> None:
    (item,) = read(f"#STAGE in {words}").inputs
    assert (item.src, item.dest) == (src, "b")


@pytest.mark.parametrize("path", ["a/../b", ".", "./", "..a", "/../x", "/abs", "a..", "STAGE_DIR/x", "$STAGE_DIRS/x"])
def test_node_paths_that_stay_inside(path: str) -> None:
    assert read(f"#STAGE in a {path}").inputs[0].dest == path
    assert read(f"#STAGE out {path} b-%N/").outputs[0].src == path


@pytest.mark.parametrize("src", ["hits-*.txt", "'hits ?'", "part[0-9]", "a*/b"])
def test_wildcards_on_the_node_are_refused(src: str) -> None:
    ((line, message),) = complaints(f"#STAGE out {src} results/")
    assert line == 2
    assert "wildcards are not expanded on the node; put the files into a directory" in message


@pytest.mark.parametrize(
    ("first", "interpreter"),
    [
        ("#!/bin/sh", ("/bin/sh",)),
        ("#! /bin/sh", ("/bin/sh",)),
        ("#!/bin/bash -e -u ", ("/bin/bash", "-e -u")),
        ("#!/usr/bin/env\tpython3", ("/usr/bin/env", "python3")),
    ],
)
def test_interpreter(first: str, interpreter: tuple[str, ...]) -> None:
    script, problems = parse(first, "job")
    assert problems == []
    assert script.interpreter == interpreter


@pytest.mark.parametrize(
    "line",
    [
        "##STAGE in a b",  # switched off
        "# stage in the data first",
        "# STAGE one of three",
        "#STAGED in a b",
        "#stages",
        "# see #STAGE in a b",
    ],
)
def test_comments_that_are_left_alone(line: str) -> None:
    assert read(line).inputs == ()


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        # the line as a whole
        ("#STAGE", ["the directive is empty", "write in, out, scratch or nodes"]),
        ("#STAGE in 'a b", ["a quote is not closed", "a directive is one line"]),
        ("#STAGE in a b\\", ["nothing follows the last backslash", "a directive is one line"]),
        ("#STAGE in a\0 b", ["NUL", "remove it"]),
        ("#STAGE inn a b", ["unknown directive 'inn'", "write in"]),
        ("#STAGE NODES 4", ["unknown directive 'NODES'", "write nodes"]),
        ("#STAGE fetch a b", ["unknown directive 'fetch'", "write in, out, scratch or nodes"]),
        # nearly a directive
        ("# STAGE in a b", ["'# STAGE in' is only a comment", "write #STAGE in at the start of the line"]),
        ("#Stage out a b", ["only a comment", "write #STAGE out"]),
        ("#stage nodes 4", ["only a comment", "write #STAGE nodes"]),
        ("  #STAGE scratch /x", ["'#STAGE scratch' is only a comment", "at the start of the line"]),
        ("#STAGE\u00a0in a b", ["only a comment", "write #STAGE in"]),
        # nodes and scratch
        ("#STAGE nodes", ["nodes takes one word", "write #STAGE nodes N"]),
        ("#STAGE nodes n1, n2", ["nodes takes one word", "node set without blanks"]),
        ("#STAGE nodes ''", ["nodes takes one word"]),
        ("#STAGE nodes 0", ["a job on 0 nodes is not possible", "write a number from 1"]),
        ("#STAGE nodes 9999999", ["a job on 9999999 nodes is not possible"]),
        ("#STAGE nodes n[1-", ["n[1-", "write it like"]),
        ("#STAGE scratch", ["scratch takes one word", "write #STAGE scratch PATH"]),
        ("#STAGE scratch tmp/x", ["'tmp/x' cannot be a scratch directory", "write an absolute path"]),
        ("#STAGE scratch /", ["'/' cannot be a scratch directory", "write an absolute path"]),
        ("#STAGE scratch /a/..", ["'/a/..' cannot be a scratch directory"]),
        ("#STAGE scratch //", ["'//' cannot be a scratch directory"]),
        # places
        ("#STAGE in", ["in needs a source and a destination", "write #STAGE in SRC DEST"]),
        ("#STAGE in genome.fa to=first", ["in needs a source and a destination"]),
        ("#STAGE out a", ["out needs a source and a destination", "write #STAGE out SRC DEST"]),
        ("#STAGE in my file b", ["unexpected word 'b'", "quote a name with blanks; options are to= via="]),
        ("#STAGE in '' b", ["the source is empty", "write a path"]),
        ("#STAGE out a ''", ["the destination is empty", "write a path"]),
        ("#STAGE in a ../b", ["'../b' leads out of the job's scratch directory", "without .., or an absolute path"]),
        ("#STAGE in a b/../..", ["'b/../..' leads out"]),
        ("#STAGE out ../a b", ["'../a' leads out"]),
        ("#STAGE in a $STAGE_DIR/b", ["variables are not expanded", "write b, which is inside $STAGE_DIR"]),
        ("#STAGE out '$STAGE_DIR/x y' b", ["write 'x y', which"]),
        ("#STAGE out ${STAGE_DIR} b", ["variables are not expanded", "write ., which is"]),
        # options
        ("#STAGE in a b form=all", ["in has no option form=", "write to= or via="]),
        ("#STAGE in a b from=all", ["in has no option from=", "write to= or via="]),
        ("#STAGE out a b form=all", ["out has no option form=", "write from="]),
        ("#STAGE out a b VIA=direct", ["out has no option VIA=", "write via="]),
        ("#STAGE in a b to=all to=first", ["to= is given twice", "keep one"]),
        ("#STAGE in a b via=tre", ["via=tre is unknown", "write via=tree"]),
        ("#STAGE in a b via=ticket", ["via=ticket is unknown", "write via="]),
        ("#STAGE out a b via=tree", ["via=tree is unknown", "write via="]),
        ("#STAGE out a b via=", ["via= is unknown", "write via=auto, via=ticket or via=direct"]),
        ("#STAGE out a b on=fail", ["on=fail is unknown", "write on=failure"]),
        ("#STAGE in a b to=rank:x", ["'rank:x' is not a rank", "write to=rank:0"]),
        ("#STAGE out a b from=rank:-1", ["'rank:-1' is not a rank", "write from=rank:0"]),
        ("#STAGE in a b to=", ["no node is named", "write it like"]),
        ("#STAGE in a b to=n[1-", ["n[1-", "write it like"]),
    ],
)
def test_each_mistake_is_one_problem(line: str, parts: list[str]) -> None:
    ((number, message),) = complaints("", line)
    assert number == 3
    for part in parts:
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize("line", ["#STAGE in a ../b", "#STAGE in a b via=x", "#STAGE out a b c", "#STAGE nodes 0"])
def test_what_is_wrong_does_not_enter_the_script(line: str) -> None:
    script, _ = parse(f"#!/bin/sh\n{line}\n", "job")
    assert (script.inputs, script.outputs, script.nodes) == ((), (), None)


@pytest.mark.parametrize(("verb", "value"), [("nodes", "4"), ("scratch", "/x")])
def test_settings_are_given_once(verb: str, value: str) -> None:
    line = f"#STAGE {verb} {value}"
    assert complaints(line, "", line) == [(4, f"{verb} was given on line 2 already; keep one of the two")]


def test_all_problems_come_in_line_order() -> None:
    text = "echo hi\r\n#STAGE in a b\n"
    _, problems = parse(text, "my job")
    assert [problem.line for problem in problems] == [1, 1, 2]
    found = complaints("#STAGE in a ../b to=rank:x via=y z=1", "# STAGE out a b", "#STAGE")
    assert [line for line, _ in found] == [2, 2, 2, 2, 3, 4]


def test_a_directive_among_the_commands_is_ignored_and_said_so() -> None:
    text = "#!/bin/sh\n\ntrue\n#STAGE in a b\n# STAGE in a b\n#STAGE\n  #STAGE in a b\n#STAGED\n"
    script, problems = parse(text, "job")
    assert script.inputs == ()
    assert [problem.line for problem in problems] == [4, 6]
    assert "ignored" in problems[0].message
    assert problems[0].remedy == "move it above line 3, where the commands start"


@pytest.mark.parametrize("first", ["", "echo", " #!/bin/sh", "#!", "#! \t", "# comment", "#!/bin/sh\0"])
def test_a_script_without_interpreter(first: str) -> None:
    script, problems = parse(f"{first}\n#STAGE nodes 2", "job")
    assert script.interpreter == ()
    assert (problems[0].line, problems[0].message) == (1, "the first line names no interpreter")
    assert "#!/bin/bash" in problems[0].remedy


def test_windows_line_ends_are_reported_once_and_read_through() -> None:
    script, problems = parse("#!/bin/sh\n#STAGE nodes 2\r\n#STAGE in a b\r\ntrue\r\n", "my job.sh")
    ((line, message, remedy),) = [(p.line, p.message, p.remedy) for p in problems]
    assert line == 2
    assert "CRLF" in message
    assert remedy == r"convert it with: sed -i 's/\r$//' 'my job.sh'"
    assert script.nodes == NodeRequest(2, 2)
    assert [(item.src, item.dest) for item in script.inputs] == [("a", "b")]


_WORDS = st.sampled_from(
    ["in", "out", "nodes", "scratch", "to=", "from=", "on=", "via=", "rank:", "all", "..", "/", "'", '"', "\\", "%N"]
)
_SCRIPTS = st.lists(st.one_of(_WORDS, st.sampled_from(["#STAGE ", "#!", "\n", "\r\n", " "]), st.text(max_size=4)))


@given(st.one_of(st.text(), _SCRIPTS.map("".join), _SCRIPTS.map(lambda words: "#STAGE " + " ".join(words))))
@example("")
@example("#!\0")
@example("#!/bin/sh\n#STAGE nodes " + "9" * 5000)
@example("#!/bin/sh\n#STAGE in a b to=rank:" + "9" * 5000)
def test_any_text_is_parsed(text: str) -> None:
    script, problems = parse(text, "job")
    assert script.text == text
    lines = [problem.line for problem in problems]
    assert lines == sorted(lines)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines)
    assert all(problem.message and problem.remedy for problem in problems)


# A word that starts like an option is one, and an absolute path can be no mistake of the node's side.
_PATHS = st.text(st.characters(exclude_characters="\0\n\r"), min_size=1).map(lambda text: "/" + text)


@given(_PATHS, _PATHS)
def test_quoted_paths_come_back_as_they_were(src: str, dest: str) -> None:
    script = read(f"#STAGE in {shlex.quote(src)} {shlex.quote(dest)}")
    assert [(item.src, item.dest) for item in script.inputs] == [(src, dest)]
