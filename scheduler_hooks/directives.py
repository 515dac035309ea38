"""The `#STAGE` lines of a job script. Pure: the script's text in, what it asks for and what is wrong with it out.

    #STAGE in SRC DEST [to=WHERE] [via=auto|tree|stripe|multicast|direct]
    #STAGE out SRC DEST [from=WHERE] [via=auto|ticket|direct] [on=success|failure|always]
    #STAGE scratch PATH
    #STAGE nodes N|NODESET

WHERE is all, first, rank:N or a node set. Without an option the first of its choices holds. Words are split as a
POSIX shell splits them, but nothing is expanded and a `#` starts no comment. Directives end at the first line that
is neither blank nor a comment, as #SBATCH lines do.
"""

from __future__ import annotations

import difflib
import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import TypeVar, get_args

from cluster import nodes as nodesets
from scheduler_hooks.jobscript import (
    InMethod,
    JobScript,
    NodeRequest,
    Outcome,
    OutMethod,
    Problem,
    StageIn,
    StageOut,
    Target,
)
from staging.mover.errors import UsageError

_Word = TypeVar("_Word", bound=str)

_IN_METHODS: tuple[InMethod, ...] = get_args(InMethod)
_OUT_METHODS: tuple[OutMethod, ...] = get_args(OutMethod)
_OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
_VERBS = ("in", "out", "scratch", "nodes")
_OPTIONS = {"in": ("to", "via"), "out": ("from", "via", "on")}
_ANY_OPTION = frozenset(option for options in _OPTIONS.values() for option in options)

_DIRECTIVE = re.compile(r"#STAGE(?:[ \t]+(.*))?$")
_IN_BODY = re.compile(r"#STAGE(?!\S)")
# Not `##STAGE`, which is how a directive is switched off, nor `# stage in`, which is prose.
_ALMOST = re.compile(rf"\s*(#(?:[ \t]+STAGE|(?i:stage))\s+({'|'.join(_VERBS)}))(?!\S)")
_STAGE_DIR = re.compile(r"\$(?:STAGE_DIR\b|\{STAGE_DIR\})/*")
_GLOB = re.compile(r"[*?]|\[[^/\]]+\]")
_NUMBER = re.compile(r"[0-9]{1,6}")  # more digits than that are no number of nodes


def parse(text: str, name: str) -> tuple[JobScript, list[Problem]]:
    """The script that `text` describes, and everything wrong with it in line order.

    The script holds what could be understood; run it only if there are no problems. `name` is kept for messages.
    """
    reader = _Reader()
    windows = text.find("\r\n")
    if windows >= 0:
        number = text.count("\n", 0, windows) + 1
        remedy = rf"convert it with: sed -i 's/\r$//' {shlex.quote(name)}"
        reader.complain(number, "the line ends as on Windows (CRLF), which no #! line survives", remedy)
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    interpreter = reader.interpreter(lines[0])
    body = 0  # the line where the commands start
    for number, line in enumerate(lines, 1):
        if not body and line.strip() and not line.lstrip().startswith("#"):
            body = number
        if not body:
            reader.comment(number, line)
        elif _IN_BODY.match(line):
            remedy = f"move it above line {body}, where the commands start"
            reader.complain(number, "a #STAGE line below the first command is ignored", remedy)
    script = JobScript(
        name, text, interpreter, tuple(reader.inputs), tuple(reader.outputs), reader.scratch, reader.nodes
    )
    return script, sorted(reader.problems, key=lambda problem: problem.line)


class _Reader:
    """Takes the lines of one script and gathers what they say."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.inputs: list[StageIn] = []
        self.outputs: list[StageOut] = []
        self.scratch: str | None = None
        self.nodes: NodeRequest | None = None
        self._once: dict[str, int] = {}

    def complain(self, line: int, message: str, remedy: str) -> None:
        self.problems.append(Problem(line, message, remedy))

    def interpreter(self, line: str) -> tuple[str, ...]:
        program = line[2:].strip(" \t")
        if not line.startswith("#!") or not program or "\0" in program:
            self.complain(1, "the first line names no interpreter", "start the script with a line such as #!/bin/bash")
            return ()
        return tuple(re.split(r"[ \t]+", program, maxsplit=1))

    def comment(self, line: int, text: str) -> None:
        directive = _DIRECTIVE.match(text)
        if directive is None:
            almost = _ALMOST.match(text)
            if almost:
                remedy = f"write #STAGE {almost[2]} at the start of the line"
                self.complain(line, f"{almost[1]!r} is only a comment as it is written", remedy)
            return
        if "\0" in text:
            self.complain(line, "the line holds a NUL byte", "remove it; no path can hold one")
            return
        try:
            words = shlex.split(directive[1] or "")
        except ValueError as error:
            what = "a quote is not closed" if "quotation" in str(error) else "nothing follows the last backslash"
            self.complain(line, what, "a directive is one line, and a literal quote or backslash needs a backslash")
            return
        if not words:
            self.complain(line, "the directive is empty", _suggest("", _VERBS))
            return
        verb, *arguments = words
        if verb == "in":
            self._in(line, arguments)
        elif verb == "out":
            self._out(line, arguments)
        elif verb in _VERBS:
            self._setting(line, verb, arguments)
        else:
            self.complain(line, f"unknown directive {verb!r}", _suggest(verb, _VERBS))

    def _setting(self, line: int, verb: str, words: Sequence[str]) -> None:
        """`scratch` and `nodes`: one word, at most once."""
        usage = "#STAGE scratch PATH" if verb == "scratch" else "#STAGE nodes N, or a node set without blanks"
        if len(words) != 1 or not words[0]:
            self.complain(line, f"{verb} takes one word", f"write {usage}")
            return
        first = self._once.setdefault(verb, line)
        if first != line:
            self.complain(line, f"{verb} was given on line {first} already", "keep one of the two")
        elif verb == "nodes":
            self.nodes = self._nodes(line, words[0])
        elif not words[0].startswith("/") or not posixpath.normpath(words[0]).strip("/"):
            # It is removed after the job, so it is never / itself.
            remedy = "write an absolute path such as /scratch/%u/%j"
            self.complain(line, f"{words[0]!r} cannot be a scratch directory", remedy)
        else:
            self.scratch = words[0]

    def _nodes(self, line: int, word: str) -> NodeRequest | None:
        if not re.fullmatch(r"[0-9]+", word):
            names = self._node_set(line, word)
            return NodeRequest(line, len(names), names) if names else None
        if _NUMBER.fullmatch(word) and int(word):
            return NodeRequest(line, int(word))
        self.complain(line, f"a job on {word} nodes is not possible", "write a number from 1 to 999999")
        return None

    def _node_set(self, line: int, word: str) -> tuple[str, ...]:
        try:
            return nodesets.parse(word)
        except UsageError as error:
            self.problems.append(Problem.of(line, error))
            return ()

    def _in(self, line: int, words: Sequence[str]) -> None:
        known = len(self.problems)
        places, options = self._operands(line, "in", words)
        if len(places) == 2:
            self._check_node_path(line, places[1])
        to = self._target(line, "to", options)
        via = self._choose(line, "via", options, _IN_METHODS)
        if len(self.problems) == known:
            self.inputs.append(StageIn(line, places[0], places[1], to, via))

    def _out(self, line: int, words: Sequence[str]) -> None:
        known = len(self.problems)
        places, options = self._operands(line, "out", words)
        if places:
            self._check_node_path(line, places[0])
            if _GLOB.search(places[0]):
                remedy = "put the files into a directory and write that, as in out results/ results-%N/"
                self.complain(line, f"{places[0]!r}: wildcards are not expanded on the node", remedy)
        from_ = self._target(line, "from", options)
        via = self._choose(line, "via", options, _OUT_METHODS)
        on = self._choose(line, "on", options, _OUTCOMES)
        if len(self.problems) == known:
            self.outputs.append(StageOut(line, places[0], places[1], from_, via, on))

    def _operands(self, line: int, verb: str, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """Sort the words of `in` or `out` into places (SRC and DEST) and options.

        A word that starts like an option is one wherever it stands, so that a missing DEST is noticed; a file of
        such a name is written ./to=first. Any other `word=` among the first two is a place.
        """
        places: list[str] = []
        options: dict[str, str] = {}
        for word in words:
            option, equals, value = word.partition("=")
            if not equals or (option not in _ANY_OPTION and len(places) < 2):
                places.append(word)
            elif option not in _OPTIONS[verb]:
                self.complain(line, f"{verb} has no option {option}=", _suggest(option, _OPTIONS[verb], after="="))
            elif option in options:
                self.complain(line, f"{option}= is given twice", "keep one of the two")
            else:
                options[option] = value
        if len(places) < 2:
            self.complain(line, f"{verb} needs a source and a destination", f"write #STAGE {verb} SRC DEST")
        for extra in places[2:]:
            remedy = f"quote a name with blanks; options are {' '.join(f'{key}=' for key in _OPTIONS[verb])}"
            self.complain(line, f"unexpected word {extra!r}", remedy)
        for what, place in zip(("source", "destination"), places, strict=False):
            if not place:
                self.complain(line, f"the {what} is empty", "write a path, or . for the directory itself")
        return places[:2], options

    def _check_node_path(self, line: int, path: str) -> None:
        variable = _STAGE_DIR.match(path)
        if variable:
            inside = path[variable.end() :] or "."
            message = f"{path!r} is taken as it stands, since variables are not expanded here"
            self.complain(line, message, f"write {shlex.quote(inside)}, which is inside $STAGE_DIR")
        elif posixpath.normpath(path).split("/")[0] == "..":
            remedy = "write a path without .., or an absolute path on the node"
            self.complain(line, f"{path!r} leads out of the job's scratch directory", remedy)

    def _target(self, line: int, option: str, options: Mapping[str, str]) -> Target:
        word = options.get(option, "all")
        kind, colon, rank = word.partition(":")
        if word == "all":
            return Target("all")
        if word == "first":
            return Target("first")
        if kind == "rank" and colon:
            if _NUMBER.fullmatch(rank):
                return Target("rank", rank=int(rank))
            self.complain(line, f"{word!r} is not a rank", f"write {option}=rank:0 for the first node")
            return Target("first")
        return Target("nodes", names=self._node_set(line, word))

    def _choose(self, line: int, option: str, options: Mapping[str, str], choices: Sequence[_Word]) -> _Word:
        word = options.get(option, choices[0])
        for choice in choices:
            if choice == word:
                return choice
        self.complain(line, f"{option}={word} is unknown", _suggest(word, choices, before=f"{option}="))
        return choices[0]


def _suggest(word: str, choices: Sequence[str], *, before: str = "", after: str = "") -> str:
    """Advise to write the nearest of the choices, or any of them if none is near."""
    near = difflib.get_close_matches(word.lower(), choices, 1) or choices
    offers = [before + choice + after for choice in near]
    return "write " + " or ".join(filter(None, [", ".join(offers[:-1]), offers[-1]]))
