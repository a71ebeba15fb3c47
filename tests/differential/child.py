"""A forked holder: a process with copies of the ends of both pipes that does what it is told."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import struct
from typing import Any, NoReturn

from differential.operations import ON_AN_END, Op
from differential.pair import Difference, Pair

_LENGTH = struct.Struct("I")


class Child:
    """The parent's handle of one."""

    def __init__(self, pair: Pair) -> None:
        self._socket, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            _serve(pair, theirs, self._socket)
        theirs.close()

    def does(self, op: Op, readers: int, writers: int) -> bool:
        """Has it do an operation: whether it did.  Difference, as if it were done here."""
        _send(self._socket, (op, readers, writers))
        done, difference = _receive(self._socket)
        if difference:
            raise Difference(*difference)
        return bool(done)

    def exit(self) -> None:
        """Lets it end, with all its ends open."""
        _send(self._socket, None)
        self._reap()

    def kill(self) -> None:
        """SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)
        self._reap()

    def _reap(self) -> None:
        os.waitpid(self.pid, 0)
        self._socket.close()


def _serve(pair: Pair, channel: socket.socket, other: socket.socket) -> NoReturn:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0)
        other.close()
        pair.kernel.stop_edges()
        pair.shm.stop_edges()
        while (command := _receive(channel)) is not None:
            _send(channel, _answer(pair, *command))
    finally:
        os._exit(0)


def _answer(pair: Pair, op: Op, readers: int, writers: int) -> tuple[bool, Any]:
    done = True
    try:
        if op[0] in ON_AN_END:
            done = pair.on_an_end(op, readers, writers)
        elif op[0] == "close":
            pair.on_both("close", op[1])
        elif op[0] == "poll":
            pair.compare_revents()
        pair.compare_facts(op[1] if op[1:] else 0)
    except Difference as difference:
        what = f"{difference.what}, in the child"
        return True, (what, difference.kernel, difference.shm)
    return done, None


def _send(channel: socket.socket, message: object) -> None:
    data = pickle.dumps(message)
    channel.sendall(_LENGTH.pack(len(data)) + data)


def _receive(channel: socket.socket) -> Any:
    """None when the other end is gone."""
    header = _exactly(channel, _LENGTH.size)
    if not header:
        return None
    # Only our own fork sends here.
    return pickle.loads(_exactly(channel, _LENGTH.unpack(header)[0]))


def _exactly(channel: socket.socket, count: int) -> bytes:
    data = channel.recv(count, socket.MSG_WAITALL)
    return data if len(data) == count else b""
