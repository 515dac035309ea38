"""Each call in a fresh, single-threaded interpreter, since it forks or changes the process for good."""

import subprocess
import sys
import textwrap

HEAD = "import os, signal, sys, time\nfrom cluster import forking\n"


def run(script: str) -> subprocess.CompletedProcess[str]:
    source = HEAD + textwrap.dedent(script)
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=30)


def output(script: str) -> list[str]:
    done = run(script)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_forked_body_gives_its_code_and_never_comes_back() -> None:
    assert output("""
        _, status = os.waitpid(forking.fork(lambda: 7), 0)
        print("once", os.waitstatus_to_exitcode(status))
    """) == ["once", "7"]


def test_a_forked_body_that_raises_ends_with_its_traceback() -> None:
    done = run("""
        _, status = os.waitpid(forking.fork(lambda: 1 // 0), 0)
        print("once", os.waitstatus_to_exitcode(status))
    """)
    assert done.stdout.split() == ["once", "1"]
    assert "ZeroDivisionError" in done.stderr


def test_a_subreaper_gets_the_orphans_and_sees_them_among_its_children() -> None:
    assert output("""
        forking.become_subreaper()
        reader, writer = os.pipe()
        def orphan():
            os.write(writer, b"%d" % forking.fork(signal.pause))
            return 0
        os.waitpid(forking.fork(orphan), 0)
        pid = int(os.read(reader, 16))
        print(forking.children() == {pid})
        forking.kill_child(pid)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), forking.children() == set())
    """) == ["True", "-9", "True"]


def test_a_process_dies_with_its_parent_also_when_that_was_gone_before() -> None:
    assert output("""
        forking.become_subreaper()
        reader, writer = os.pipe()
        def parent():
            def child():
                forking.die_with(parent_pid, signal.SIGUSR1)
                os.write(writer, b"x")
                signal.pause()
            parent_pid = os.getpid()
            forking.fork(child)
            os.read(reader, 1)
            return 0
        os.waitpid(forking.fork(parent), 0)
        print(os.waitstatus_to_exitcode(os.wait()[1]))
        late = forking.fork(lambda: forking.die_with(-1, signal.SIGKILL) or 0)
        print(os.waitstatus_to_exitcode(os.waitpid(late, 0)[1]))
    """) == ["-10", "1"]


def test_only_the_descriptors_named_stay_open() -> None:
    assert output("""
        reader, writer = os.pipe()
        os.dup2(reader, 900)
        forking.close_all_but({0, 1, 2, writer})
        listing = os.open("/proc/self/fd", os.O_RDONLY)
        print({int(fd) for fd in os.listdir(listing)} - {0, 1, 2, listing} - {writer, 900, reader + 2})
        print(os.fstat(writer) is not None, os.path.exists("/proc/self/fd/900"))
    """) == ["set()", "True", "False"]


def test_closed_standard_streams_are_filled() -> None:
    assert output("""
        os.close(0)
        os.close(2)
        forking.open_standard_streams()
        print(os.readlink("/proc/self/fd/0"), os.readlink("/proc/self/fd/2"), os.path.exists("/proc/self/fd/3"))
    """) == ["/dev/null", "/dev/null", "False"]


def test_signals_that_arrive_are_told_once_each() -> None:
    assert output("""
        woken = forking.wake_on(signal.SIGUSR1, signal.SIGTERM)
        print(len(forking.arrived(woken)))
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
        print(*sorted(forking.arrived(woken)), len(forking.arrived(woken)))
    """) == ["0", "10", "15", "0"]
