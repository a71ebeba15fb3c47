"""What /proc says of a process."""

import platform

# The system calls in which an actor sleeps, as /proc/PID/syscall names them.
FUTEXES, POLLS = {
    "x86_64": ({"202", "449"}, {"7", "23", "232", "270", "271", "281"}),
    "aarch64": ({"98", "449"}, {"22", "72", "73"}),
}[platform.machine()]


def state_of(pid: int) -> str:
    """The letter of a process's state, "" if it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def system_call(pid: int) -> str:
    """The number of the system call in which a process is, "" if it is gone or not in one."""
    try:
        with open(f"/proc/{pid}/syscall") as call:
            return call.read().split()[0]
    except OSError:
        return ""


def waited_for_cpu(pid: int) -> int:
    """Nanoseconds that a process's first thread was ready without a processor; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/schedstat") as numbers:
            return int(numbers.read().split()[1])
    except OSError:
        return 0
