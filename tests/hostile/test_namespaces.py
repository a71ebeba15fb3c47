"""PID and user namespaces: the same numbers for different processes, and nobody to be seen."""

from __future__ import annotations

import ctypes
import os
import signal
import traceback
from collections.abc import Callable, Iterator

import pytest
import shmpipe

from support.run import run_id

from .conftest import NOBODY, become_nobody, in_a_child

CLONE_NEWUSER, CLONE_NEWPID = 0x10000000, 0x20000000
LIBC = ctypes.CDLL(None, use_errno=True)

# Of fork beside the watchdog's threads.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def enter(flags: int) -> None:
    """unshare(2), which Python has since 3.12 only."""
    if LIBC.unshare(flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def fork(step: Callable[[], int]) -> int:
    """A child that takes the step and exits with what it returns, whatever happens."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = step()
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    return pid


def exit_code_of(step: Callable[[], int]) -> int:
    """Of a child that takes the step; minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(fork(step), 0)[1])


def needs(flags: int) -> None:
    """Skips where the machine forbids it."""

    def tries() -> int:
        try:
            enter(flags)
        except OSError as error:
            return error.errno or 1
        return 0

    code = exit_code_of(tries)
    if code != 0:
        pytest.skip(f"unshare is forbidden here: {os.strerror(code)}")


def as_process_1(step: Callable[[], int]) -> int:
    """The exit code of the first process of a new pid namespace."""
    code = in_a_child(lambda: enter(CLONE_NEWPID), lambda: exit_code_of(step))
    assert isinstance(code, int)
    return code


@pytest.fixture
def named() -> Iterator[str]:
    name = f"namespaces-{run_id()}"
    shmpipe.mkfifo(name)
    yield name
    shmpipe.unlink(name)


def test_bytes_go_between_pid_namespaces(named: str) -> None:
    needs(CLONE_NEWPID)
    with shmpipe.open(named, "r+") as end:

        def writes() -> int:
            assert os.getpid() == 1
            with shmpipe.open(named, "w") as writer:
                return 0 if writer.write(b"from process 1") == 14 else 1

        assert as_process_1(writes) == 0
        assert end.read(100) == b"from process 1"
        assert shmpipe.check(end).errors == 0


def test_two_processes_of_the_same_number_are_two(named: str) -> None:
    """Each is process 1 of its own namespace, and neither may be taken for the other."""
    needs(CLONE_NEWPID)
    first_is_in, tell = os.pipe()
    second_was_in, tell_first = os.pipe()

    def first() -> int:
        with shmpipe.open(named, "w") as writer:
            writer.write(b"1" * 100)
            os.write(tell, b"x")
            os.read(second_was_in, 1)
            writer.write(b"1" * 100)
        return 0

    def second() -> int:
        with shmpipe.open(named, "w") as writer:
            return 0 if writer.write(b"2" * 100) == 100 else 1

    with shmpipe.open(named, "r+") as end:

        def keeps() -> int:
            enter(CLONE_NEWPID)
            return exit_code_of(first)

        keeper = fork(keeps)
        os.read(first_is_in, 1)
        assert [each.pid for each in shmpipe.snapshot(end).processes].count(1) == 1
        assert as_process_1(second) == 0
        os.write(tell_first, b"x")
        assert os.waitstatus_to_exitcode(os.waitpid(keeper, 0)[1]) == 0
        assert end.read(1000) == b"1" * 100 + b"2" * 100 + b"1" * 100
        assert shmpipe.check(end).errors == 0
    for each in (first_is_in, tell, second_was_in, tell_first):
        os.close(each)


def kill_in_another_namespace(step: Callable[[], int], started: int) -> None:
    """Kills a process 1 that takes the step, once it has said so through a descriptor."""

    def keeps() -> int:
        enter(CLONE_NEWPID)
        inner = fork(step)
        os.read(started, 1)
        os.kill(inner, signal.SIGKILL)
        return -os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])

    assert exit_code_of(keeps) == signal.SIGKILL


def test_a_writer_killed_in_another_pid_namespace_is_the_end(named: str) -> None:
    """Its number means somebody else here, or nobody: companion and lock say that it died."""
    needs(CLONE_NEWPID)
    started, tell = os.pipe()

    def holds() -> int:
        with shmpipe.open(named, "w") as writer:
            writer.write(b"last words")
            os.write(tell, b"x")
            signal.pause()
        return 1

    reader = shmpipe.open(named, "r", flags=os.O_NONBLOCK)
    with reader:
        kill_in_another_namespace(holds, started)
        assert reader.read(100) == b"last words"
        assert reader.read(100) == b""
        assert shmpipe.check(reader).errors == 0
    os.close(started)
    os.close(tell)


def test_who_is_killed_at_work_in_another_pid_namespace_blocks_nobody() -> None:
    """Its record cannot be found under its number, so the record lock alone proves it dead."""
    needs(CLONE_NEWPID)
    started, tell = os.pipe()
    reader, writer = shmpipe.pipe(os.O_NONBLOCK)

    def exchanges() -> int:
        os.write(tell, b"x")
        while True:
            writer.write(b"abc")
            reader.read(3)

    with reader, writer:
        for _ in range(10):
            kill_in_another_namespace(exchanges, started)
            while reader.read(100):
                pass
            assert writer.write(b"still works") == 11
            assert reader.read(100) == b"still works"
            assert shmpipe.check(reader).errors == 0
    os.close(started)
    os.close(tell)


def fork_as(pid: int, step: Callable[[], int]) -> int:
    """The same in a child of that number, which nobody has any more."""
    with open("/proc/sys/kernel/ns_last_pid", "w") as last:
        last.write(str(pid - 1))
    assert fork(step) == pid
    return pid


def can_choose_numbers() -> None:
    """Skips where nobody may say which process number comes next."""
    needs(CLONE_NEWPID)

    def tries() -> int:
        try:
            with open("/proc/sys/kernel/ns_last_pid", "w") as last:
                last.write("40")
        except OSError as error:
            return error.errno or 1
        return 0

    code = as_process_1(tries)
    if code != 0:
        pytest.skip(f"/proc/sys/kernel/ns_last_pid: {os.strerror(code)}")


def sleep_for_good() -> int:
    signal.pause()
    return 0


def test_a_number_that_lives_again_is_not_who_had_it() -> None:
    """Killed at work, and the next process has its number, and both ends of the same pipe."""
    can_choose_numbers()
    started, tell = os.pipe()

    def survives() -> int:
        reader, writer = shmpipe.pipe(os.O_NONBLOCK)

        def exchanges() -> int:
            os.write(tell, b"x")
            while True:
                writer.write(b"abc")
                reader.read(3)

        with reader, writer:
            victim = fork(exchanges)
            for _ in range(20):
                os.read(started, 1)
                os.kill(victim, signal.SIGKILL)
                os.waitpid(victim, 0)
                fork_as(victim, sleep_for_good)
                while reader.read(100):
                    pass
                assert writer.write(b"still works") == 11
                assert reader.read(100) == b"still works"
                assert shmpipe.check(reader).errors == 0
                os.kill(victim, signal.SIGKILL)
                os.waitpid(victim, 0)
                fork_as(victim, exchanges)
        return 0

    assert as_process_1(survives) == 0
    os.close(started)
    os.close(tell)


def test_a_number_that_lives_again_keeps_nobody_waiting() -> None:
    """A reader sleeps while the last writer's number goes from a dead process to one that lives."""
    can_choose_numbers()
    started, tell = os.pipe()

    def survives() -> int:
        reader, writer = shmpipe.pipe()

        def reads() -> int:
            writer.close()
            os.write(tell, b"r")
            return 0 if reader.read(100) == b"" else 1

        def holds() -> int:
            reader.close()
            os.write(tell, b"w")
            return sleep_for_good()

        def namesake() -> int:
            reader.close()
            return sleep_for_good()

        sleeper, holder = fork(reads), fork(holds)
        assert {os.read(started, 1), os.read(started, 1)} == {b"r", b"w"}
        writer.close()
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        fork_as(holder, namesake)
        code = os.waitstatus_to_exitcode(os.waitpid(sleeper, 0)[1])
        reader.close()
        return code

    assert as_process_1(survives) == 0
    os.close(started)
    os.close(tell)


def test_a_user_namespace_gives_no_rights(named: str) -> None:
    """Without a mapping every file is somebody else's, and capabilities count for nothing."""
    needs(CLONE_NEWUSER)
    if os.geteuid() != 0:
        pytest.skip("only root can become another user first")

    def looks() -> str:
        assert os.geteuid() == NOBODY
        try:
            shmpipe.open(named, "r+", flags=os.O_NONBLOCK).close()
        except PermissionError:
            return "refused"
        return "opened"

    assert in_a_child(become_nobody, lambda: enter(CLONE_NEWUSER), looks) == "refused"


def test_an_anonymous_pipe_goes_into_a_user_namespace() -> None:
    needs(CLONE_NEWUSER)
    reader, writer = shmpipe.pipe()
    with reader, writer:

        def writes() -> int | None:
            return writer.write(b"from within")

        assert in_a_child(lambda: enter(CLONE_NEWUSER), writes) == 11
        assert reader.read(100) == b"from within"
        assert shmpipe.check(reader).errors == 0
