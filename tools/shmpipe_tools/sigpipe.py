"""The end of a command whose own output nobody reads any more."""

import os
import signal
from typing import NoReturn


def die_of_sigpipe() -> NoReturn:
    """Ends like any other filter whose reader went away: silently, and the shell can see why."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
    os._exit(128 + signal.SIGPIPE)  # only if the signal is blocked
