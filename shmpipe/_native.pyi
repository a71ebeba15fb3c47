# The extension module that cbits/build_ffi.py makes.  Only _lib.py imports it, and gives it types.
from typing import Any

ffi: Any
lib: Any
