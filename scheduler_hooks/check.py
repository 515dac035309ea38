"""What of a job script only the user's file system can tell, and the lines that name a script's problems."""

from __future__ import annotations

import difflib
import itertools
import os
import re
import shlex
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from cluster.nodes import fold
from cluster.printing import printable
from scheduler_hooks.job import Job
from scheduler_hooks.jobscript import JobScript, Problem, is_directory_form, landing
from scheduler_hooks.patterns import Values, fill, names_node
from staging.mover.errors import UsageError


def check_sources(script: JobScript, base: Path, values: Values, nodes: Sequence[str] = ()) -> list[Problem]:
    """Sources of `in` that are missing or unreadable, at most one a directive; relative ones start at `base`.

    A source that names the node (%N, %n) is looked for once for each node of its target; without `nodes`, not at all.
    """
    problems = []
    for item in script.inputs:
        members = [values]
        try:
            if names_node(item.src):
                members = item.to.values(nodes, values) if nodes else []
        except UsageError as error:
            problems.append(Problem.of(item.line, error))
            continue
        found = (_source(item.line, base.absolute(), fill(item.src, at)) for at in members)
        problems += itertools.islice(filter(None, found), 1)
    return problems


def check_destinations(script: JobScript, base: Path, nodes: Sequence[str], values: Values) -> list[Problem]:
    """Destinations of `out` that could not be written, at most one a directive; relative ones start at `base`."""
    problems = []
    for item in script.outputs:
        try:
            members = item.from_.values(nodes, values)
        except UsageError as error:
            problems.append(Problem.of(item.line, error))
            continue
        pairs = dict.fromkeys((fill(item.src, at), fill(item.dest, at)) for at in members)
        found = (_destination(item.line, base.absolute(), src, dest) for src, dest in pairs)
        problems += itertools.islice(filter(None, found), 1)
    return problems


def check_scratch(job: Job) -> list[Problem]:
    """A scratch directory that is there already, as far as the nodes' file trees are on this machine.

    With the job's number in its name it is a new one for each job; `job.id` is not looked at.
    """
    if job.script.scratch is None or "%j" in job.script.scratch.replace("%%", ""):
        return []
    there = [node.name for node in job.nodes if node.root and os.path.lexists(job.real(node, job.scratch(node)))]
    if not there:
        return []
    lines = enumerate(job.script.text.split("\n"), 1)
    line = next((number for number, text in lines if re.match(r"#STAGE[ \t]+scratch\b", text)), 1)
    message = f"the scratch directory {job.script.scratch} is there already on {fold(there)}"
    return [Problem(line, message, "remove it there, or put %j into its name")]


def render(problems: Iterable[Problem], name: str) -> str:
    """One line each, `job.sh:7: message; remedy`, in line order, without repeats; the unprintable is escaped."""
    unique = sorted(dict.fromkeys(problems), key=lambda problem: problem.line)
    lines = (f"{name}:{problem.line}: {problem.message}; {problem.remedy}" for problem in unique)
    return "\n".join(map(printable, lines))


def require(problems: Sequence[Problem], name: str) -> None:
    """Raise one UsageError that carries the line of every problem, if there are any."""
    if problems:
        error = UsageError(render(problems, name))
        error.multiline = True
        raise error


def _source(line: int, base: Path, src: str) -> Problem | None:
    path = base / src
    try:
        directory = stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            return Problem(line, f"{src} is a symbolic link to nothing", "repair the link, or name another source")
        return Problem(line, f"{src} does not exist", f"write {_existing(base, path)}")
    except OSError as error:
        return Problem(line, f"{src} cannot be read: {error.strerror}", "name a source that can")
    if src.endswith("/") and not directory:
        return Problem(line, f"{src} is a file, not a directory", f"write {shlex.quote(src.rstrip('/'))}")
    if not os.access(path, os.R_OK | os.X_OK if directory else os.R_OK):
        remedy = f"allow it with chmod u+{'rx' if directory else 'r'}, or name another source"
        return Problem(line, f"you may not read {src}", remedy)
    return None


def _existing(base: Path, path: Path) -> str:
    """What to write for a missing `path`: the same with its first missing name put right, if one is near."""
    missing = path
    while not os.path.lexists(missing.parent):
        missing = missing.parent
    parent = missing.parent
    names = os.listdir(parent) if parent.is_dir() and os.access(parent, os.R_OK) else []
    near = difflib.get_close_matches(missing.name, names, 1)
    if near:
        return shlex.quote(_shown(base, parent / near[0] / path.relative_to(missing)))
    return f"the name of something in {parent}" if parent.is_dir() else f"another path, as {parent} is a file"


def _destination(line: int, base: Path, src: str, dest: str) -> Problem | None:
    target = base / landing(src, dest)
    holder = target if is_directory_form(src) or target.is_dir() else target.parent
    while not os.path.exists(holder):  # what is missing will be made
        holder = holder.parent
    if not holder.is_dir():
        remedy = "remove it, or write another destination"
        return Problem(line, f"{_shown(base, holder)} is a file, not a directory", remedy)
    if not os.access(holder, os.W_OK | os.X_OK):
        return Problem(line, f"you may not write in {holder}", "write a destination in a directory of yours")
    return None


def _shown(base: Path, path: Path) -> str:
    """`path` as the user would write it."""
    return str(path.relative_to(base) if path.is_relative_to(base) else path)
