"""Sizes and ages as people write and read them: 64K in, 64 KiB out."""

import re

import click

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SIZE = re.compile(r"(\d{1,18})\s*(?:([KMG])(?:i?B)?|B)?", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int:
    """Bytes in "4096", "64K", "64KiB", "1M"; K is 1024.  ValueError for anything else."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size: write bytes, or 64K, 1M, 1G")
    return int(match[1]) * _UNITS[(match[2] or "").upper()]


def format_size(count: float) -> str:
    """A size in the largest unit that keeps it at or above one: "64 KiB", "1.5 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if count == int(count) else f"{count:.1f} {unit}"


def format_age(seconds: float) -> str:
    """A time span in two units at most: "12 s", "3 min 5 s", "2 h 4 min", "3 d 1 h"."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size_option(_ctx: click.Context, _param: click.Parameter, value: str) -> int:
    """A click callback for an option that takes a size."""
    try:
        return parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
