"""What depends on the interpreter in the build: the extension module and the wheel's tag."""

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).parent / "cbits"))
from build_ffi import LIMITED_API  # beside the C code, not installed

setup(
    cffi_modules=["cbits/build_ffi.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {},
)
