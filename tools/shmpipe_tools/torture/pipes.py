"""The two kinds of pipe that can be tortured, with one interface: shmpipe's, and the kernel's."""

import fcntl
import io
import os
import struct
import termios
from typing import Any

import shmpipe
from shmpipe.inspect import Snapshot
from shmpipe_tools.torture.plan import Episode


class KernelEnd(io.FileIO):
    """An end of os.pipe with what else a shmpipe.End has."""

    @property
    def pending(self) -> int:
        """Bytes that can be read now."""
        result: int = struct.unpack("i", fcntl.ioctl(self, termios.FIONREAD, bytes(4)))[0]
        return result

    @property
    def capacity(self) -> int:
        """Bytes that it holds."""
        return fcntl.fcntl(self, fcntl.F_GETPIPE_SZ)

    @capacity.setter
    def capacity(self, size: int) -> None:
        fcntl.fcntl(self, fcntl.F_SETPIPE_SZ, size)

    @property
    def nonblocking(self) -> bool:
        """O_NONBLOCK."""
        return not os.get_blocking(self.fileno())

    @nonblocking.setter
    def nonblocking(self, on: bool) -> None:
        os.set_blocking(self.fileno(), not on)


AnyEnd = shmpipe.End | KernelEnd


class Pipe:
    """The pipe of an episode, and the ends that the zygote keeps so that it lives on."""

    def __init__(self, episode: Episode, name: str) -> None:
        self.episode = episode
        self.name = ""
        self.reader: AnyEnd
        self.writer: AnyEnd
        flags = os.O_DIRECT if episode.packets else 0
        if episode.transport == "os.pipe":
            fds = os.pipe2(flags | os.O_CLOEXEC)
            self.reader, self.writer = KernelEnd(fds[0], "r"), KernelEnd(fds[1], "w")
            self.writer.capacity = episode.capacity
        elif episode.transport == "anonymous":
            self.reader, self.writer = shmpipe.pipe(
                flags, capacity=episode.capacity, first_index=episode.first_index
            )
        else:
            self.name = name
            shmpipe.mkfifo(name, capacity=episode.capacity, first_index=episode.first_index)
            self.reader = shmpipe.open(name, "r", flags=os.O_NONBLOCK)
            self.writer = self.open(True)
        self.reader.nonblocking = episode.nonblocking_readers
        self.writer.nonblocking = episode.nonblocking_writers

    @property
    def shared(self) -> bool:
        """Whether it is one of ours."""
        return isinstance(self.reader, shmpipe.End)

    def descriptor(self) -> int:
        """The zygote's descriptor of the segment."""
        end: Any = self.reader if not self.reader.closed else self.writer
        return int(end.pass_fds()[0]) if self.shared else -1

    def open(self, writes: bool) -> AnyEnd:
        """An end of a named pipe of one's own."""
        episode = self.episode
        end = shmpipe.open(self.name, "w" if writes else "r")
        if writes and episode.packets:
            shmpipe.fcntl(end, fcntl.F_SETFL, os.O_DIRECT)
        if episode.nonblocking_writers if writes else episode.nonblocking_readers:
            end.nonblocking = True
        return end

    def snapshot(self) -> Snapshot | None:
        """What the inspector says; None of a kernel pipe, or when the zygote has no end left."""
        for end in (self.reader, self.writer):
            if isinstance(end, shmpipe.End) and not end.closed:
                return end.stat()
        return None

    def close(self) -> None:
        """The zygote leaves it; a name is removed."""
        self.reader.close()
        self.writer.close()
        if self.name:
            shmpipe.unlink(self.name)
