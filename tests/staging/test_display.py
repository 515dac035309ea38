import io
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from staging.display import (
    MAX_NODE_ROWS,
    SCHEMA,
    JsonDisplay,
    LineDisplay,
    LiveDisplay,
    NullDisplay,
    make_display,
)
from staging.progress import Progress
from staging.report import Report

GIB = 1 << 30
T0 = 1767225600.0
DOCS = (Path(__file__).parents[2] / "docs" / "events.md").read_text(encoding="utf-8")
TYPES = ["transfer-start", "progress", "ticket", "note", "node-done", "node-failed", "transfer-end"]
TYPES += ["phase", "would-copy", "exit", "plan", "error"]


def start(nodes, *, transfer="in:1", what="genome.fa"):
    return {
        "type": "transfer-start",
        "transfer": transfer,
        "what": what,
        "direction": "in",
        "nodes": list(nodes),
        "addresses": {},
        "files": 1,
        "bytes": 2 * GIB,
        "method": "tree",
        "detail": "chain",
    }


def moved(node, size):
    return {"type": "progress", "transfer": "in:1", "node": node, "bytes": size}


def done(node):
    return {
        "type": "node-done",
        "transfer": "in:1",
        "node": node,
        "bytes": 2 * GIB,
        "fetched": 2 * GIB,
        "reused": 0,
        "seconds": 16.0,
        "digest": "ab",
    }


FAILED = {
    "type": "node-failed",
    "transfer": "in:1",
    "node": "n2",
    "error": {"class": "Unreachable", "message": "n2 has been silent for 10 s", "remedy": "try again"},
    "partial": True,
}
NOTE = {"type": "note", "transfer": "in:1", "node": "n1", "message": "[red]n3[/red] sent a bad block"}


def end(ok=("n1",), bad=("n2",), transfer="in:1"):
    return {
        "type": "transfer-end",
        "transfer": transfer,
        "bytes": 2 * GIB,
        "seconds": 16.0,
        "digest": "ab",
        "ok": list(ok),
        "failed": list(bad),
    }


class Terminal(io.StringIO):
    def isatty(self):
        return True


def choose(mode, *, json=False, stderr=None, env=None):
    env = {"TERM": "xterm-256color"} if env is None else env
    return make_display(mode, json=json, stderr=stderr or Terminal(), stdout=io.StringIO(), env=env)


class TestMakeDisplay:
    @pytest.mark.parametrize(
        ("mode", "stderr", "env", "kind"),
        [
            ("auto", Terminal(), {"TERM": "xterm"}, LiveDisplay),
            ("auto", io.StringIO(), {"TERM": "xterm"}, LineDisplay),
            ("auto", Terminal(), {"TERM": "dumb"}, LineDisplay),
            ("auto", Terminal(), {}, LineDisplay),
            ("live", io.StringIO(), {"TERM": "xterm"}, LiveDisplay),
            ("live", Terminal(), {"TERM": "dumb"}, LineDisplay),
            ("lines", Terminal(), {"TERM": "xterm"}, LineDisplay),
            ("none", Terminal(), {"TERM": "xterm"}, NullDisplay),
        ],
    )
    def test_choice(self, mode, stderr, env, kind):
        assert type(choose(mode, stderr=stderr, env=env)) is kind

    @pytest.mark.parametrize("mode", ["auto", "live", "lines", "none"])
    def test_json_decides_alone(self, mode):
        assert type(choose(mode, json=True)) is JsonDisplay

    @pytest.mark.parametrize(("no_color", "coloured"), [("1", False), ("", True)])
    def test_no_color(self, monkeypatch, no_color, coloured):
        monkeypatch.setenv("TERM", "xterm-256color")
        stderr = Terminal()
        display = choose("auto", stderr=stderr, env={"TERM": "xterm-256color", "NO_COLOR": no_color})
        display.event(start(["n1"]), T0)
        display.event(moved("n1", GIB), T0 + 1)
        display.close()
        assert bool(re.search(r"\x1b\[[0-9;]*(3[0-9]|9[0-7])[0-9;]*m", stderr.getvalue())) is coloured

    def test_rich_is_imported_for_live_only(self):
        code = (
            "import io, sys; from staging.display import make_display\n"
            "d = make_display('auto', json=False, stderr=io.StringIO(), stdout=io.StringIO(), env={'TERM': 'xterm'})\n"
            "d.tick(0.0); d.print_line('x'); d.close(); sys.exit('rich' in sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


class TestLineDisplay:
    def test_a_transfer(self):
        stderr = io.StringIO()
        display = LineDisplay(stderr)
        display.event(start(["n1", "n2"]), T0)
        for tenth in range(1, 155):
            now = T0 + tenth / 10
            for node in ("n1", "n2"):
                display.event(moved(node, tenth * GIB // 100), now)
            display.tick(now)
        display.event(NOTE, T0 + 15.5)
        display.event(FAILED, T0 + 15.6)
        display.event(done("n1"), T0 + 16)
        display.event(end(), T0 + 16)
        display.tick(T0 + 30)
        display.print_line("the job begins")
        display.close()
        assert stderr.getvalue() == (
            "genome.fa: 1 file, 2.0 GiB to 2 nodes by tree (chain)\n"
            "genome.fa: 50%, 2.0 GiB of 4.0 GiB, 204.8 MiB/s, eta 10.0 s, 0 of 2 nodes done\n"
            "genome.fa: n1: [red]n3[/red] sent a bad block\n"
            "genome.fa: n2 failed: n2 has been silent for 10 s; try again (a resumable partial replica is left there)\n"
            "genome.fa: done on 1 of 2 nodes, 2.0 GiB in 16.0 s, 128.0 MiB/s\n"
            "the job begins\n"
        )

    def test_a_line_every_ten_seconds_also_when_the_clock_is_set_back(self):
        stderr = io.StringIO()
        display = LineDisplay(stderr)
        display.event(start(["n1"]), T0)
        counts = []
        for now in (T0 + 9.9, T0 + 10.1, T0 + 20, T0 + 20.2, T0 - 3600, T0 - 3595, T0 - 3590):
            display.tick(now)
            counts.append(stderr.getvalue().count("\n") - 1)
        assert counts == [0, 1, 1, 2, 3, 3, 4]

    def test_says_nothing_while_nothing_is_moved(self):
        stderr = io.StringIO()
        display = LineDisplay(stderr)
        display.event({"type": "phase", "phase": "run"}, T0)
        display.tick(T0 + 100)
        assert stderr.getvalue() == ""


class TestJsonDisplay:
    def test_lines(self):
        stdout, stderr = io.StringIO(), io.StringIO()
        display = JsonDisplay(stdout, stderr)
        display.event(moved("n1", 5), T0)
        display.event({**NOTE, "message": "odd \udcff\nname"}, T0 + 0.5)
        display.tick(T0 + 60)
        display.print_line("for people")
        display.close()
        assert stdout.getvalue() == (
            '{"type": "progress", "schema": 1, "time": 1767225600.0, "transfer": "in:1", "node": "n1", "bytes": 5}\n'
            '{"type": "note", "schema": 1, "time": 1767225600.5, "transfer": "in:1", "node": "n1",'
            ' "message": "odd \\udcff\\nname"}\n'
        )
        assert stderr.getvalue() == "for people\n"

    def test_each_line_is_flushed(self, tmp_path):
        path = tmp_path / "events"
        with path.open("w") as stdout:
            JsonDisplay(stdout, io.StringIO()).event(moved("n1", 5), T0)
            assert path.read_text().endswith("}\n")


def test_null_display_prints_only_what_it_is_told_to():
    stderr = io.StringIO()
    display = NullDisplay(stderr)
    for event in (start(["n1"]), NOTE, FAILED, end()):
        display.event(event, T0)
    display.tick(T0 + 60)
    display.print_line("for people")
    display.close()
    assert stderr.getvalue() == "for people\n"


class Screen:
    """What a terminal would show of a LiveDisplay: enough of ECMA-48 for what rich writes."""

    def __init__(self, width=80, height=25):
        self.file = io.StringIO()
        console = Console(
            file=self.file, force_terminal=True, width=width, height=height, color_system=None, legacy_windows=False
        )
        self.display = LiveDisplay(console)

    def lines(self):
        rows, row = [""], 0
        for token in re.findall(r"\x1b\[\??[0-9;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.file.getvalue()):
            if token == "\n":
                row += 1
                rows += [""] * (row + 1 - len(rows))
            elif token == "\x1b[1A":
                assert row > 0, "the cursor would leave the screen"
                row -= 1
            elif token == "\x1b[2K":
                rows[row] = ""
            elif token in ("\r", "\x1b[?25l", "\x1b[?25h"):
                pass
            else:
                assert not token.startswith("\x1b"), token
                rows[row] += token
        while rows and not rows[-1].strip():
            rows.pop()
        return [row.rstrip() for row in rows]


class TestLiveDisplay:
    def test_a_row_for_the_transfer_and_one_for_each_node(self):
        screen = Screen(width=100)
        nodes = [f"n{i}" for i in range(1, 5)]
        screen.display.event(start(nodes), T0)
        for second in (1, 2):
            for node in nodes[:2]:
                screen.display.event(moved(node, second * GIB // 2), T0 + second)
        ticket = {"type": "ticket", "transfer": "in:1", "node": "n3", "state": "wait", "position": 7}
        screen.display.event(ticket, T0 + 2)
        screen.display.tick(T0 + 2.2)
        rows = [re.sub(r"[━╸╺ ]+", " ", line).strip() for line in screen.lines()]
        assert rows == [
            "genome.fa 25% 2.0 GiB of 8.0 GiB 1.0 GiB/s eta 6.00 s",
            "n1 50% 1.0 GiB of 2.0 GiB 512.0 MiB/s eta 2.00 s",
            "n2 50% 1.0 GiB of 2.0 GiB 512.0 MiB/s eta 2.00 s",
            "n3 0% 0 B of 2.0 GiB - queued 7",
            "n4 0% 0 B of 2.0 GiB - waiting",
        ]
        assert any("━" in line for line in screen.lines())
        screen.display.close()

    def test_lines_stay_above_the_bars_and_nothing_of_the_bars_is_left(self):
        screen = Screen()
        screen.display.event(start(["n1", "n2"]), T0)
        screen.display.event(NOTE, T0 + 0.01)
        screen.display.event(FAILED, T0 + 0.02)
        screen.display.print_line("n1: \x1b[31mred\x1b[0m " + "long " * 30)
        shown = screen.lines()
        long = "n1: red " + "long " * 30
        assert shown[:3] == [
            "genome.fa: n1: [red]n3[/red] sent a bad block",
            "genome.fa: n2 failed: n2 has been silent for 10 s; try again (a resumable partial replica is left there)",
            long.strip(),
        ]
        assert [line.split()[0] for line in shown[3:]] == ["genome.fa", "n1", "n2"]
        screen.display.event(done("n1"), T0 + 16)
        screen.display.event(end(), T0 + 16.01)
        assert screen.lines()[3:] == ["genome.fa: done on 1 of 2 nodes, 2.0 GiB in 16.0 s, 128.0 MiB/s"]

    def test_many_nodes_have_no_rows_of_their_own(self):
        for count, rows in ((MAX_NODE_ROWS, MAX_NODE_ROWS + 1), (MAX_NODE_ROWS + 1, 1)):
            screen = Screen()
            screen.display.event(start([f"n{i}" for i in range(count)]), T0)
            assert len(screen.lines()) == rows
            screen.display.close()

    def test_several_transfers_have_a_row_for_all(self):
        screen = Screen()
        screen.display.event(start(["n1"]), T0)
        screen.display.event(start(["n1", "n2"], transfer="in:2", what="params [x]/\n"), T0)
        assert [line.split("  ")[0].strip() or line.split()[0] for line in screen.lines()] == [
            "2 transfers",
            "genome.fa",
            "n1",
            "params [x]/\\n",
            "n1",
            "n2",
        ]
        screen.display.event(end(["n1"], [], "in:1"), T0 + 1)
        assert len(screen.lines()) == 4  # the first one's last line, and three rows of bars
        screen.display.close()

    def test_an_output_of_unknown_size_has_no_percentage(self):
        screen = Screen()
        screen.display.event({**start(["n1"]), "direction": "out", "bytes": 0}, T0)
        screen.display.event(moved("n1", GIB), T0 + 1)
        assert [line.replace("━", "").split() for line in screen.lines()] == [
            ["genome.fa", "1.0", "GiB", "-", "-"],
            ["n1", "1.0", "GiB", "-", "-"],
        ]
        screen.display.close()

    def test_more_rows_than_the_terminal_has_lines(self):
        screen = Screen(height=6)
        screen.display.event(start([f"n{i}" for i in range(12)]), T0)
        assert len(screen.lines()) == 6
        screen.display.close()
        assert screen.lines() == []

    def test_a_narrow_terminal_has_no_wrapped_rows(self):
        screen = Screen(width=30)
        screen.display.event(start(["n1", "n2"]), T0)
        assert max(map(len, screen.lines())) <= 30
        assert len(screen.lines()) == 3
        screen.display.close()

    def test_is_drawn_at_most_eight_times_a_second(self):
        screen = Screen()
        screen.display.event(start(["n1"]), T0)
        before = screen.file.getvalue()
        screen.display.event(moved("n1", GIB), T0 + 0.05)
        screen.display.tick(T0 + 0.1)
        assert screen.file.getvalue() == before
        screen.display.tick(T0 + 0.13)
        assert screen.file.getvalue() != before
        screen.display.close()

    def test_has_no_thread_and_leaves_the_standard_streams_alone(self):
        before, streams = threading.enumerate(), (sys.stdout, sys.stderr)
        screen = Screen()
        screen.display.event(start(["n1"]), T0)
        screen.display.tick(T0 + 1)
        assert threading.enumerate() == before
        assert (sys.stdout, sys.stderr) == streams
        screen.display.close()
        assert threading.enumerate() == before

    def test_close_gives_the_cursor_back_and_may_be_called_twice(self):
        screen = Screen()
        screen.display.event(start(["n1"]), T0)
        assert "\x1b[?25l" in screen.file.getvalue()
        screen.display.close()
        shown = screen.file.getvalue()
        assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")
        screen.display.close()
        assert screen.file.getvalue() == shown

    def test_bars_come_back_for_the_next_transfer(self):
        screen = Screen()
        screen.display.event(start(["n1"]), T0)
        screen.display.event(end(["n1"], []), T0 + 1)
        screen.display.print_line("the job's own line")
        screen.display.event(start(["n2"], transfer="in:2", what="more"), T0 + 2)
        assert [line.split()[0] for line in screen.lines()] == ["genome.fa:", "the", "more", "n2"]
        screen.display.close()


class TestDocumentation:
    """docs/events.md says what is printed: every type, its fields, and an example that our own consumers take."""

    SECTIONS = re.split(r"^## ", DOCS, flags=re.MULTILINE)[1:]

    @staticmethod
    def example(section):
        (text,) = re.findall(r"```json\n(.*?)\n```", section, flags=re.DOTALL)
        return text

    def test_has_a_section_for_each_type(self):
        assert [section.split("\n")[0].strip("`") for section in self.SECTIONS] == TYPES

    @pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.split("\n")[0])
    def test_example_is_what_json_display_prints_and_has_the_fields_of_the_table(self, section):
        event = json.loads(self.example(section))
        now, schema = event.pop("time"), event.pop("schema")
        stdout = io.StringIO()
        JsonDisplay(stdout, io.StringIO()).event(event, now)
        assert stdout.getvalue() == self.example(section) + "\n"
        assert schema == SCHEMA
        assert event.pop("type") == section.split("\n")[0].strip("`")
        assert list(event) == re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE)

    def test_examples_tell_a_story_that_progress_report_and_displays_take(self):
        progress, report, stderr, screen = Progress(), Report(), io.StringIO(), Screen()
        lines = LineDisplay(stderr)
        seen = []
        for section in self.SECTIONS:
            event = json.loads(self.example(section))
            progress.update(event, event["time"])
            report.update(event)
            lines.event(event, event["time"])
            screen.display.event(event, event["time"])
            transfer = progress.transfer("in:7", event["time"])
            seen.append([(str(n.state), n.bytes) for n in transfer.nodes])
        screen.display.close()
        half, full = GIB, 2 * GIB
        assert seen[:7] == [
            [("waiting", 0), ("waiting", 0)],
            [("moving", half), ("waiting", 0)],
            [("moving", half), ("queued", 0)],
            [("moving", half), ("queued", 0)],
            [("done", full), ("queued", 0)],
            [("done", full), ("failed", 0)],
            [("done", full), ("failed", 0)],
        ]
        assert progress.snapshot(T0).transfers == ()
        assert report.exit_code() == 3
        assert "n1: 1.0 GiB of 2.0 GiB were already there" in report.text()
        assert stderr.getvalue().count("\n") == 4
