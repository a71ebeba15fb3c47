"""The two pipes that do the demonstration's job: a named shmpipe and os.pipe, in packet mode."""

import contextlib
import fcntl
import io
import os
from typing import Protocol

import shmpipe


class Stream(Protocol):
    """A pipe before anybody has an end of it.

    The open functions are called in the processes that use the end.
    """

    label: str

    def create(self) -> None:
        """The pipe begins to exist."""

    def open_reader(self) -> io.RawIOBase:
        """The calling process becomes a consumer."""

    def open_writer(self) -> io.RawIOBase:
        """The calling process becomes the producer."""

    def detach(self) -> None:
        """The calling process is neither, and holds nothing open."""

    def remove(self) -> None:
        """Nothing is left behind, whether or not it was created."""


class NamedSharedPipe:
    """A named shmpipe: each process opens it by its name, like a FIFO."""

    label = "shmpipe"

    def __init__(self, name: str) -> None:
        self.name = name

    def create(self) -> None:
        """Makes the segment and its FIFO in /dev/shm."""
        shmpipe.mkfifo(self.name)

    def open_reader(self) -> io.RawIOBase:
        """Waits for the producer, as a FIFO does."""
        return shmpipe.open(self.name, "r")

    def open_writer(self) -> io.RawIOBase:
        """Waits for a consumer, and switches to packets."""
        writer = shmpipe.open(self.name, "w")
        shmpipe.fcntl(writer, fcntl.F_SETFL, os.O_DIRECT)
        return writer

    def detach(self) -> None:
        """Opened by nobody but those who use it."""

    def remove(self) -> None:
        """Unlinks the name if it is there."""
        with contextlib.suppress(FileNotFoundError):
            shmpipe.unlink(self.name)


class KernelPipe:
    """os.pipe, whose descriptors the processes inherit."""

    label = "os.pipe"

    def __init__(self) -> None:
        self._ends: list[int] = []

    def create(self) -> None:
        """Makes the pipe; until detach() this process has both its ends."""
        self._ends += os.pipe2(os.O_DIRECT)

    def open_reader(self) -> io.RawIOBase:
        """Keeps the inherited read end."""
        reader, writer = self._ends
        os.close(writer)
        return io.FileIO(reader, "rb")

    def open_writer(self) -> io.RawIOBase:
        """Keeps the inherited write end."""
        reader, writer = self._ends
        os.close(reader)
        return io.FileIO(writer, "wb")

    def detach(self) -> None:
        """Closes this process's two ends."""
        while self._ends:
            os.close(self._ends.pop())

    def remove(self) -> None:
        """Goes with its last end."""
        self.detach()
