"""SIGIO as it arrives: arming an end, and taking the signals that wait, with all they carry."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from conformance.ends import End

# Numbers of Linux; Python lacks some of them.
F_SETOWN, F_GETOWN, F_SETSIG, F_GETSIG, F_SETOWN_EX, F_GETOWN_EX = 8, 9, 10, 11, 15, 16
F_OWNER_TID, F_OWNER_PID, F_OWNER_PGRP = 0, 1, 2
OWNER = struct.Struct("ii")  # struct f_owner_ex

QUEUED = signal.SIGRTMIN + 4
POLL_IN, POLL_OUT = (1, 0x41), (2, 0x304)  # si_code and si_band

_LIBC = ctypes.CDLL(None, use_errno=True)
_SIGINFO = struct.Struct("iiixxxxli")  # signo, errno, code, band, fd
_SIGINFO_BYTES = 128


class Notice(NamedTuple):
    """One signal."""

    code: int
    band: int
    fd: int


def taken(number: int = QUEUED) -> list[Notice]:
    """Takes the signals that are waiting, in their order: Python's siginfo has no si_fd."""
    wanted = ctypes.create_string_buffer(_SIGINFO_BYTES)
    _LIBC.sigemptyset(wanted)
    _LIBC.sigaddset(wanted, int(number))
    info = ctypes.create_string_buffer(_SIGINFO_BYTES)
    at_once = ctypes.create_string_buffer(16)  # a struct timespec of zeros
    seen = []
    while _LIBC.sigtimedwait(wanted, info, at_once) == number:
        _, _, code, band, fd = _SIGINFO.unpack_from(info.raw)
        seen.append(Notice(code, band, fd))
    return seen


def caught(number: int = QUEUED) -> list[tuple[int, int]]:
    """The same without the descriptors: (si_code, si_band) of each."""
    return [notice[:2] for notice in taken(number)]


def arm(end: End, number: int = QUEUED) -> None:
    """For this process."""
    end.fcntl(F_SETOWN, os.getpid())
    end.fcntl(F_SETSIG, number)
    end.set_flag(os.O_ASYNC)


@pytest.fixture
def blocked() -> Iterator[None]:
    """The signals wait in a queue, where they can be counted."""
    numbers = {QUEUED, signal.SIGIO}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    yield
    for number in numbers:
        taken(number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
