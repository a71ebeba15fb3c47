"""Builds the extension module shmpipe._native: the C core behind cffi, in API mode.

What cffi declares is derived from include/shmpipe.h, so the header is the only place where a
call or a structure is written down.  Each call gets a twin shmpy_NAME for Python that

- takes an end as an integer: no cdata is made for it on the hot path;
- returns a result of at least 0, or -errno.  cffi keeps errno in a variable of the thread, and
  CPython may run a signal handler between the return of a call and the next statement: a handler
  that uses a pipe of its own would overwrite the errno of the call that it interrupted.
"""

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
CPYTHON = sys.implementation.name == "cpython"

# One binary for every CPython from 3.11 on.  Free-threaded and debug builds have no stable ABI.
LIMITED_API = (
    CPYTHON
    and not sysconfig.get_config_var("Py_GIL_DISABLED")
    and not hasattr(sys, "gettotalrefcount")
)
LIMITED_API_VERSION = "0x030b0000"

FLAGS = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wconversion", "-fvisibility=hidden"]

def link_time_optimisation() -> list[str]:
    """-flto, if this compiler can link with it: a small write and read gain a third.

    The core is many small files that call each other a dozen times for one message.
    """
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text("int probe(void) { return 0; }\n")
        command = [*compiler, "-flto=auto", "-O2", "-fPIC", "-shared", str(source), "-o"]
        try:
            subprocess.run([*command, f"{folder}/probe.so"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return []
    return ["-flto=auto"]


LTO = link_time_optimisation()

PRELUDE = """
typedef int... mode_t;
struct iovec { void *iov_base; size_t iov_len; };
"""

# For shmpipe/_slow.py alone, and its tests.  A sleeper that looks around calls shmp_on_tick
# (pipe.h) then: where the fast calls do not set it, shmpy_tick does, whose body is there.
SLOW_DECLARATIONS = """
extern int (*shmp_on_tick)(void);
extern uint64_t shmp_backstop_ns;
extern "Python" int shmpy_tick(void);
void shmpy_set_errno(int code);
"""
SLOW_DEFINITIONS = """
extern int (*shmp_on_tick)(void);
extern uint64_t shmp_backstop_ns;
static void shmpy_set_errno(int code)
{
    errno = code;
}
"""

# A notifier is kept where the caller says before the call returns: {descriptor or -1, process}.
# Whatever a signal handler raises right behind it, its owner knows what to close, and once; the
# memory's own destructor does it, too.  In a forked child nothing of it is left to close.
NOTIFIER_DECLARATIONS = """
intptr_t shmpy_notifier_make(uintptr_t end, int *notifier);
void shmpy_notifier_end(int *notifier);
"""
NOTIFIER_DEFINITIONS = """
static intptr_t shmpy_notifier_make(uintptr_t end, int *notifier)
{
    int fd = shmp_notifier_open((shmp_end *)end);
    if (fd < 0)
        return -(intptr_t)errno;
    notifier[1] = getpid();
    __atomic_store_n(notifier, fd, __ATOMIC_RELEASE);
    return 0;
}

static void shmpy_notifier_end(int *notifier)
{
    int fd = __atomic_exchange_n(notifier, -1, __ATOMIC_ACQ_REL);
    if (fd >= 0 && notifier[1] == getpid())
        shmp_notifier_close(fd);
}
"""

PROTOTYPE = re.compile(
    r"^(int|ssize_t|void|const char \*|shmp_end \*)\s*(shmp_\w+)\(([^;]*)\);$", re.MULTILINE
)
END_PARAMETER = re.compile(r"^(?:const )?shmp_end \*(\w+)$")


def declarations(header: str) -> tuple[str, list[tuple[str, str, str]]]:
    """Of the header: types and constants for cffi, and (result, name, parameters) of calls."""
    text = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    text = re.sub(r"^#ifdef __cplusplus.*?^#endif", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^#(?!define \w+ +\S).*$", "", text, flags=re.MULTILINE)
    # Literals stay, because they are array sizes; cffi asks the compiler for the value of others.
    text = re.sub(r"^#define (\w+) +(?!\d+u?$)\S.*$", r"#define \1 ...", text, flags=re.MULTILINE)
    calls = PROTOTYPE.findall(text)
    return PROTOTYPE.sub("", text), calls


def twin(result: str, name: str, parameters: str) -> tuple[str, str]:
    """The declaration and the definition of a call's twin for Python."""
    outer, inner = [], []
    for parameter in (p.strip() for p in " ".join(parameters.split()).split(",")):
        if parameter == "void":
            continue
        if end := END_PARAMETER.match(parameter):
            outer.append(f"uintptr_t {end[1]}")
            inner.append(f"(shmp_end *){end[1]}")
        else:
            outer.append(parameter)
            inner.append(re.sub(r"\[\d*\]$", "", parameter).split("*")[-1].split()[-1])
    call = f"{name}({', '.join(inner)})"
    arguments = ", ".join(outer) or "void"
    if result in ("void", "const char *"):
        head = f"{result} {name.replace('shmp_', 'shmpy_', 1)}({arguments})"
        body = f"{call};" if result == "void" else f"return {call};"
    else:
        head = f"intptr_t {name.replace('shmp_', 'shmpy_', 1)}({arguments})"
        failed = "NULL" if "*" in result else "-1"
        body = f"{result} r = {call};\n    return r == {failed} ? -(intptr_t)errno : (intptr_t)r;"
    return f"{head};", f"static {head}\n{{\n    {body}\n}}"


def builder() -> FFI:
    """Puts declarations, twins and sources together."""
    types, calls = declarations((HERE / "include" / "shmpipe.h").read_text())
    twins = [twin(*call) for call in calls]
    sources = sorted(path.relative_to(HERE.parent).as_posix() for path in HERE.glob("*.c"))
    if CPYTHON:
        install_fast = "int shmp_install_fast(void);"
    else:
        # No C API worth using: shmpipe/_slow.py does its work.
        sources.remove("cbits/fastcall.c")
        install_fast = "static int shmp_install_fast(void) { return -1; }"

    ffi = FFI()
    ffi.cdef(
        PRELUDE
        + types
        + "int shmp_install_fast(void);\n"
        + SLOW_DECLARATIONS
        + NOTIFIER_DECLARATIONS
        + "\n".join(head for head, _ in twins)
    )
    ffi.set_source(
        "shmpipe._native",
        "\n".join(
            [
                # Only here, and only for the code that cffi generates below.
                '#pragma GCC diagnostic ignored "-Wconversion"',
                "#include <errno.h>",
                "#include <unistd.h>",
                '#include "shmpipe.h"',
                install_fast,
                SLOW_DEFINITIONS,
                NOTIFIER_DEFINITIONS,
                *(body for _, body in twins),
            ]
        ),
        sources=sources,
        depends=sorted(str(path.relative_to(HERE.parent)) for path in HERE.rglob("*.h")),
        include_dirs=["cbits/include", "cbits"],
        define_macros=[
            ("_GNU_SOURCE", None),
            *([("Py_LIMITED_API", LIMITED_API_VERSION)] if LIMITED_API else []),
        ],
        extra_compile_args=[*FLAGS, *LTO],
        extra_link_args=["-pthread", "-O2", *LTO],
    )
    return ffi


ffibuilder = builder
