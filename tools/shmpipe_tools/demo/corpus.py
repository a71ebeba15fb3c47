"""The input of the demonstration: every .py file of the running Python's standard library."""

import hashlib
import os
import sysconfig
from dataclasses import dataclass

from shmpipe_tools.demo.packets import PAYLOAD_BYTES, encode
from shmpipe_tools.failure import Failure


@dataclass(frozen=True)
class Corpus:
    """Files on disk, and the packets that carry them."""

    paths: list[str]
    total_bytes: int
    packets: list[bytes]


def load() -> Corpus:
    """Reads the files and cuts them up; done before any clock starts."""
    paths = _python_files(sysconfig.get_path("stdlib"))
    if not paths:
        raise Failure("demo: this Python has no standard library in files")
    packets: list[bytes] = []
    total = 0
    for file, path in enumerate(paths):
        with open(path, "rb") as source:
            content = source.read()
        total += len(content)
        # An empty file travels too: one packet without a payload.
        for offset in range(0, max(1, len(content)), PAYLOAD_BYTES):
            packets.append(encode(len(packets) + 1, file, offset, content))
    return Corpus(paths, total, packets)


def digest_on_disk(path: str) -> bytes:
    """SHA-256 of a file as it is on disk now."""
    with open(path, "rb") as source:
        return hashlib.file_digest(source, "sha256").digest()


def _python_files(root: str) -> list[str]:
    found = []
    for directory, folders, files in os.walk(root):
        # What was installed later is not the standard library, and may change meanwhile.
        folders[:] = sorted(set(folders) - {"site-packages", "dist-packages", "__pycache__"})
        found += [os.path.join(directory, file) for file in sorted(files) if file.endswith(".py")]
    return [path for path in found if os.path.isfile(path)]
