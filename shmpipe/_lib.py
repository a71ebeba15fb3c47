"""The native code, with types: the only module that imports it.

Ends are addresses (int); results are at least 0 or a negative errno.  A call may return -EINTR:
CPython then runs its signal handlers on the way back, and call() and retry() go again (PEP 475).
"""

from __future__ import annotations

import errno
import sys

from shmpipe._native import ffi, lib

TYPE_CHECKING = False  # without typing, which would be half of the time that the import takes
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Any

    from _typeshed import ReadableBuffer, WriteableBuffer

    from shmpipe._slow import EndBase

    Call = Callable[..., int]
    OnError = Callable[[type[BaseException], BaseException, TracebackType | None], None]

else:

    def overload(function: Call) -> Call:
        """Stands in for typing.overload where nobody reads the types."""
        return function


PIPE_BUF: int = lib.SHMP_PIPE_BUF
DEFAULT_CAPACITY: int = lib.SHMP_CAPACITY_DEFAULT
MAX_CAPACITY: int = lib.SHMP_CAPACITY_MAX
NAME_MAX: int = lib.SHMP_NAME_MAX
SLOT_CAN_MERGE: int = lib.SHMP_SLOT_CAN_MERGE
SLOT_PACKET: int = lib.SHMP_SLOT_PACKET
SLOT_WHOLE: int = lib.SHMP_SLOT_WHOLE
SLOT_LOSS: int = lib.SHMP_SLOT_LOSS
SLOT_SEALED: int = lib.SHMP_SLOT_SEALED

# What import_end says of descriptors that are not what the token says, and that it leaves alone.
REFUSED = frozenset({errno.EBADF, errno.EINVAL, errno.ENOEXEC, errno.EUCLEAN})

# Calls on an end: the first argument is its address.  For call().
read: Call = lib.shmpy_read
write: Call = lib.shmpy_write
readv: Call = lib.shmpy_readv
writev: Call = lib.shmpy_writev
fcntl: Call = lib.shmpy_fcntl
ioctl: Call = lib.shmpy_ioctl
fileno: Call = lib.shmpy_fileno
arm: Call = lib.shmpy_arm
descriptor: Call = lib.shmpy_descriptor
is_concurrent: Call = lib.shmpy_is_concurrent
segment_fd: Call = lib.shmpy_segment_fd
export: Call = lib.shmpy_export
notifier_make: Call = lib.shmpy_notifier_make

hold: Callable[[int], None] = lib.shmpy_hold
release: Callable[[int], None] = lib.shmpy_release
close: Callable[[int], int] = lib.shmpy_close
mode: Callable[[int], int] = lib.shmpy_mode

# Calls on the descriptor of a named pipe's shared memory object.  For retry().
format_segment: Call = lib.shmpy_format
open_segment: Call = lib.shmpy_open_fd
unlink_segment: Call = lib.shmpy_unlink_fd
close_segment: Callable[[int], int] = lib.shmpy_close_segment

notifier_end: Callable[[Any], None] = lib.shmpy_notifier_end


def call(end: EndBase, function: Call, *arguments: object) -> int:
    """Runs one call on an end, held meanwhile; again after a signal, unless that closed the end.

    ValueError if the end is closed.
    """
    return end._held_call(function, *arguments)


def retry(function: Call, *arguments: object) -> int:
    """Runs one call that has no end, again after each signal."""
    while (result := function(*arguments)) == -errno.EINTR:
        pass
    return result


def fast_end_base() -> type[EndBase] | None:
    """The C implementation of EndBase, or None where the interpreter has no use for it."""
    if lib.shmp_install_fast() != 0:
        return None
    base: type[EndBase] = sys.modules["shmpipe._fastcall"].EndBase
    return base


def install_tick(tick: Callable[[], int], onerror: OnError) -> None:
    """Has every sleeper that looks around call tick(); below 0 ends the sleep with -EINTR.

    If tick() raises, onerror is told, and the sleep ends.
    """
    ffi.def_extern("shmpy_tick", error=-1, onerror=onerror)(tick)
    lib.shmp_on_tick = lib.shmpy_tick


def set_errno(code: int) -> None:
    """Sets the C variable, for C code that looks at it when a method has returned."""
    lib.shmpy_set_errno(code)


def options(capacity: int, first_index: int) -> Any:
    """struct shmp_options."""
    return ffi.new("struct shmp_options *", {"capacity": capacity, "first_index": first_index})


def pipe(flags: int, capacity: int, first_index: int) -> tuple[int, int, int]:
    """(0 or -errno, reader, writer)."""
    ends = ffi.new("shmp_end *[2]")
    result = retry(lib.shmpy_pipe2_with, ends, flags, options(capacity, first_index))
    return result, _address(ends[0]), _address(ends[1])


def name(address: int) -> str:
    """The name of the pipe, "" for an anonymous one."""
    text: bytes = ffi.string(lib.shmpy_name(address))
    return text.decode(errors="replace")


def reason() -> str:
    """Why the last call of this thread found a segment corrupt or foreign, for people."""
    text: bytes = ffi.string(lib.shmpy_reason())
    return text.decode(errors="replace")


def scratch(size: int) -> Any:
    """Memory to read into, not cleared."""
    return _new_uncleared("char[]", size)


def contents(memory: Any, size: int) -> bytes:
    """The first bytes of such memory."""
    content: bytes = ffi.buffer(memory, size)[:]
    return content


def readable_buffer(data: ReadableBuffer) -> Any:
    """The bytes of an object, as an argument; len() of it is their number."""
    return ffi.from_buffer(data)


def writable_buffer(data: WriteableBuffer) -> Any:
    """The same for an object that is written to; TypeError or BufferError if it is read-only."""
    return ffi.from_buffer("char[]", data, require_writable=True)


def vector(buffers: Sequence[Any]) -> Any:
    """An array of struct iovec over such buffers, which the caller keeps alive."""
    array = ffi.new("struct iovec[]", len(buffers))
    for entry, buffer in zip(array, buffers, strict=True):
        entry.iov_base = ffi.cast("void *", buffer)
        entry.iov_len = len(buffer)
    return array


def pointer(memory: Any) -> int:
    """A buffer as the integer argument of fcntl."""
    return int(ffi.cast("intptr_t", memory))


def integer() -> Any:
    """A C int, for ioctl; its value is integer()[0]."""
    return ffi.new("int *")


def notifier() -> Any:
    """What notifier_make fills in; its descriptor is notifier()[0], -1 if there is none.

    Dropped with one in it, it closes that, with no Python code in which a handler could raise.
    """
    return ffi.gc(ffi.new("int[2]", (-1, 0)), lib.shmpy_notifier_end)


def notifier_read(notifier: int) -> int:
    """Operations since the last time, or -errno."""
    operations = ffi.new("uint64_t *")
    result = retry(lib.shmpy_notifier_read, notifier, operations)
    return result if result < 0 else int(operations[0])


def token() -> Any:
    """struct shmp_token, empty."""
    return ffi.new("struct shmp_token *")


def import_end(
    segment_fd: int, companion_fd: int, description: int, generation: int, mode: int, flags: int
) -> int:
    """The address of an end made from a token's fields, or -errno.

    Takes the descriptors, unless that is one of REFUSED.
    """
    values = (segment_fd, companion_fd, description, generation, mode, flags)
    # No retry(): after any error but those the numbers are closed, and may be somebody else's.
    result: int = lib.shmpy_import(ffi.new("struct shmp_token *", values))
    return result


def snapshot(segment_fd: int) -> tuple[int, Any]:
    """(0 or -errno, struct shmp_snapshot)."""
    raw = ffi.new("struct shmp_snapshot *")
    return retry(lib.shmpy_inspect_fd, segment_fd, raw), raw


def check(segment_fd: int) -> tuple[int, Any]:
    """(0 or -errno, struct shmp_check)."""
    raw = ffi.new("struct shmp_check *")
    return retry(lib.shmpy_check_fd, segment_fd, raw), raw


def text(array: Any) -> str:
    """A C string in a structure."""
    content: bytes = ffi.string(array)
    return content.decode(errors="replace")


def _address(end: Any) -> int:
    return int(ffi.cast("uintptr_t", end))


_new_uncleared = ffi.new_allocator(should_clear_after_alloc=False)
