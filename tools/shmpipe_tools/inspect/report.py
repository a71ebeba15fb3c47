"""What `shmpipe stat` shows of one pipe: identity, the ring, who is there, what happened so far."""

import time
from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from shmpipe.inspect import Holder, Snapshot
from shmpipe_tools.inspect.discover import Location, Process, command_of
from shmpipe_tools.inspect.picture import RingPicture
from shmpipe_tools.output import plain_table
from shmpipe_tools.safe import printable
from shmpipe_tools.sizes import format_age, format_size


def report(location: Location, snapshot: Snapshot) -> Iterator[RenderableType]:
    """The parts of the picture, from top to bottom."""
    yield _headline(location, snapshot)
    yield Text()
    yield RingPicture(snapshot)
    yield Text()
    yield _sides(snapshot)
    yield Text()
    yield _holders(snapshot)
    for remark in _remarks(snapshot):
        yield Text()
        yield remark


def process_text(process: Process) -> str:
    """A process as "1234 (tar)"."""
    return f"{process.pid} ({printable(process.command)})"


def age_of(snapshot: Snapshot) -> float:
    """Seconds since the pipe was created."""
    return max(0.0, time.time() - snapshot.created_ns / 1e9)


def _headline(location: Location, snapshot: Snapshot) -> Text:
    text = Text()
    text.append(printable(location.label), style="bold")
    if location.kind == "unlinked":
        text.append(f"  once named '{printable(snapshot.name)}'")
    else:
        text.append(f"  {location.kind} pipe")
    text.append(
        f", {format_size(snapshot.capacity)} in {snapshot.max_usage} slots"
        f", mode {location.mode:04o}"
        f", created {format_age(age_of(snapshot))} ago by pid {snapshot.creator_pid}"
    )
    return text


def _sides(snapshot: Snapshot) -> Table:
    """Writers and readers side by side."""
    table = plain_table()
    table.add_column("")
    for title in ("OPEN", "WAITING", "CALLS", "BYTES", "SLEEPS", "WAKES", "WOULD BLOCK"):
        table.add_column(title, justify="right")
    for title, figures in (
        (
            "writers",
            (
                snapshot.writers,
                snapshot.write_waiters,
                snapshot.writes,
                snapshot.bytes_written,
                snapshot.write_sleeps,
                snapshot.write_wakes,
                snapshot.write_again,
            ),
        ),
        (
            "readers",
            (
                snapshot.readers,
                snapshot.read_waiters,
                snapshot.reads,
                snapshot.bytes_read,
                snapshot.read_sleeps,
                snapshot.read_wakes,
                snapshot.read_again,
            ),
        ),
    ):
        table.add_row(title, *(str(figure) for figure in figures))
    return table


def _holders(snapshot: Snapshot) -> Table:
    """The processes that hold ends, and which of them are inside a lock."""
    table = plain_table()
    for title in ("PID", "READS", "WRITES"):
        table.add_column(title, justify="right")
    for title in ("STATE", "LOCKS", "COMMAND"):
        table.add_column(title)
    for holder in snapshot.processes:
        table.add_row(
            str(holder.pid),
            str(holder.readers),
            str(holder.writers),
            Text("alive", "green") if holder.alive else Text("dead, not yet reaped", "red"),
            ", ".join(_locks_of(holder, snapshot)) or "-",
            printable(command_of(holder.pid)) if holder.alive else "-",
        )
    return table


def _locks_of(holder: Holder, snapshot: Snapshot) -> Iterator[str]:
    for title, owner in (
        ("write", snapshot.write_lock_owner),
        ("read", snapshot.read_lock_owner),
        ("companion", snapshot.companion_lock_owner),
    ):
        if owner == holder.index + 1:
            yield title


def _remarks(snapshot: Snapshot) -> Iterator[Text]:
    """What is worth knowing only when it happened."""
    hidden = snapshot.holders - len(snapshot.processes)
    if hidden > 0:
        yield Text(f"{hidden} more processes hold ends.")
    lookers = [side for bit, side in ((1, "read"), (2, "write")) if snapshot.poll_usage & bit]
    if lookers:
        yield Text(f"Somebody polls the {' and the '.join(lookers)} ends.")
    told = [side for bit, side in ((8, "read"), (16, "write")) if snapshot.poll_usage & bit]
    if told:
        yield Text(f"Operations are counted for notifiers of the {' and the '.join(told)} ends.")
    for count, meaning in (
        (snapshot.broadcasts, "times everybody was woken (an end closed, a process died)"),
        (snapshot.reaped, "dead processes cleaned up"),
        (snapshot.recoveries, "locks taken over from the dead"),
    ):
        if count:
            yield Text(f"{count} {meaning}.")
    if snapshot.slice_found_work:
        yield Text(
            f"{snapshot.slice_found_work} lost wakes: a defect of shmpipe, please report it.",
            style="bold red",
        )
