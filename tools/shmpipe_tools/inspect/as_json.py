"""A pipe as JSON: the snapshot's fields under their own names, and where the pipe was found."""

from dataclasses import asdict
from typing import Any

from shmpipe.inspect import Slot, Snapshot
from shmpipe_tools.inspect.discover import Location


def pipe_as_json(location: Location, snapshot: Snapshot) -> dict[str, Any]:
    """Everything that is known about one pipe."""
    return {
        "pipe": location.label,
        "kind": location.kind,
        "mode": f"{location.mode:04o}",
        "device": location.device,
        "inode": location.inode,
        "open_in": [asdict(process) for process in location.processes],
        **asdict(snapshot),
        "slots": [_slot_as_json(slot) for slot in snapshot.slots],
    }


def _slot_as_json(slot: Slot) -> dict[str, Any]:
    flags = ("can_merge", "packet", "whole", "loss", "sealed")
    return {
        "start": slot.start,
        "end": slot.end,
        "flags": [flag for flag in flags if getattr(slot, flag)],
    }
