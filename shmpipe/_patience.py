"""Between "it would block" and the loop's sleep: what event loops share.

A loop tries the ring first.  Only when it has found nothing for about as long as a wake would take
does it arm the descriptor, and may sleep.  Until then the descriptor reads as ready, so a loop
that waits for it comes back at once: the other side, which works meanwhile on another CPU, pays no
system call, nor does this one.
"""

from __future__ import annotations

import select
from time import monotonic

from shmpipe import _lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shmpipe.ends import End

IN = select.POLLIN
OUT = select.POLLOUT

_WAKE_SECONDS = 50e-6


def descriptor(end: End) -> int:
    """What to wait for, level-triggered; ready also while there is nothing, until armed.

    End.fileno() is the same number, but it has both sides keep the readiness exact for ever.
    """
    return end._call(_lib.descriptor)


def arm(end: End, event: int) -> bool:
    """True: the descriptor is not ready until the end is.  False: the end may be ready now.

    Loses no wake-up: what comes between a try that would have blocked and this makes it False.
    """
    return end._call(_lib.arm, event) == 0


class Patience:
    """Decides, each time that an end would block, whether its loop may sleep."""

    def __init__(self, end: End, event: int) -> None:
        """For reading an end (IN) or for writing it (OUT)."""
        self._end = end
        self._event = event
        self._until: float | None = None

    def exhausted(self) -> bool:
        """True: armed, and the loop may sleep.  False: try again in its next round."""
        now = monotonic()
        if self._until is None and self._end._call(_lib.is_concurrent, self._event):
            self._until = now + _WAKE_SECONDS
        if self._until is not None and now < self._until:
            return False
        self._until = None
        return arm(self._end, self._event)

    def renew(self) -> None:
        """It did not block: the next time begins anew."""
        self._until = None
