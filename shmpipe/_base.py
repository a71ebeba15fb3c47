"""Chooses the implementation of EndBase: the C type, or the one in Python where there is none."""

import os

from shmpipe import _lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shmpipe._slow import EndBase
else:
    # The variable lets one interpreter run the tests of both.
    EndBase = None if os.environ.get("SHMPIPE_NO_FASTCALL") == "1" else _lib.fast_end_base()
    if EndBase is None:
        from shmpipe._slow import EndBase, install_tick

        install_tick()

__all__ = ["EndBase"]
