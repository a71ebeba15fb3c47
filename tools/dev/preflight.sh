#!/bin/sh
# Checks what a fresh clone needs before anything is built: one line for the first thing that is missing.
# Usage: preflight.sh PYTHON [CC]
set -u
python=${1:-python3}
cc=${2:-cc}

fail() {
    echo "shmpipe: $1" >&2
    exit 1
}

newer_python() {
    for candidate in python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

[ "$(uname -s)" = Linux ] || fail "this is $(uname -s); shmpipe needs Linux (futexes, memfd, kernel pipes)"

advice="install it (Debian, Ubuntu: apt install python3 python3-venv python3-dev; Fedora: dnf install python3-devel) or name one: make PYTHON=python3.12 ..."
command -v "$python" >/dev/null 2>&1 || fail "there is no $python; $advice"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
    fail "$python does not run; $advice"
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    other=$(newer_python)
    if [ -n "$other" ]; then
        fail "$python is Python $version, and shmpipe needs 3.11 or newer; this machine has one: make PYTHON=$other ..."
    fi
    fail "$python is Python $version, and shmpipe needs 3.11 or newer; $advice"
fi

"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$python cannot make virtual environments; install its venv module (Debian, Ubuntu: apt install python$version-venv)"

# CC may carry arguments ("ccache gcc"): the first word is the program.
command -v "${cc%% *}" >/dev/null 2>&1 ||
    fail "there is no C compiler called ${cc%% *}; install one (Debian, Ubuntu: apt install gcc libc6-dev; Fedora: dnf install gcc) or name one: make CC=clang ..."
echo '#include <stdio.h>' | $cc -fsyntax-only -x c - 2>/dev/null ||
    fail "the C compiler $cc cannot find stdio.h; install the C library's headers (Debian, Ubuntu: apt install libc6-dev; Fedora: dnf install glibc-devel)"

include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
[ -e "$include/Python.h" ] ||
    fail "Python.h is missing from $include; install the headers of Python $version (Debian, Ubuntu: apt install python$version-dev; Fedora: dnf install python3-devel)"

[ -d /dev/shm ] || fail "there is no /dev/shm; mount it (mount -t tmpfs -o mode=1777 tmpfs /dev/shm)"
[ -w /dev/shm ] || fail "/dev/shm is not writable for $(id -un); its mode should be 1777 (chmod 1777 /dev/shm)"
