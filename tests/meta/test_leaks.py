"""Each kind of leak must fail exactly the test that caused it."""

from __future__ import annotations

import pytest

from meta.conftest import RunPytest

LEAKS = {
    "descriptor": "import os\ndef test_bad():\n    os.pipe()\n",
    "mapping": (
        "import mmap, os\nkept = []\ndef test_bad():\n"
        "    fd = os.memfd_create('shmpipe-x')\n    os.ftruncate(fd, 4096)\n"
        "    kept.append(mmap.mmap(fd, 4096, access=mmap.ACCESS_READ))\n    os.close(fd)\n"
    ),
    "name": (
        "import os\ndef test_bad():\n"
        "    name = f'/dev/shm/shmpipe-meta-{os.getpid()}'\n    open(name, 'x').close()\n"
        "def test_clean_up():\n    os.unlink(f'/dev/shm/shmpipe-meta-{os.getpid()}')\n"
    ),
    "child": (
        "import os, signal\ndef test_bad():\n"
        "    if os.fork() == 0:\n        signal.pause()\n        os._exit(0)\n"
    ),
    "thread": (
        "import threading\nevent = threading.Event()\ndef test_bad():\n"
        "    threading.Thread(target=event.wait, daemon=True).start()\n"
    ),
}
ZOMBIE = (
    "import os\ndef test_bad():\n    if os.fork() == 0:\n        os._exit(0)\n"
    "    os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)\n"  # it is one from now on
)
GOOD = "\ndef test_good():\n    pass\n"


@pytest.mark.parametrize("kind", LEAKS)
def test_a_leak_fails_the_test_that_caused_it(kind: str, run_pytest: RunPytest) -> None:
    outcome = run_pytest(LEAKS[kind] + GOOD)
    assert outcome.returncode == 1, outcome.stdout
    assert f"  {kind}: " in outcome.stdout
    assert "ERROR at teardown of test_bad" in outcome.stdout
    assert outcome.stdout.count("ERROR at teardown") == 1, "only the guilty test may fail"


def test_a_zombie_is_a_leak(run_pytest: RunPytest) -> None:
    outcome = run_pytest(ZOMBIE + GOOD)
    assert outcome.returncode == 1
    assert "(state Z)" in outcome.stdout
    assert outcome.stdout.count("ERROR at teardown") == 1


def test_one_process_record_is_no_leak(run_pytest: RunPytest) -> None:
    source = "import os\nkept = []\ndef record():\n"
    source += "    kept.append(os.memfd_create('shmpipe-record'))\n"
    source += "def test_first():\n    record()\n"
    assert run_pytest(source).returncode == 0
    outcome = run_pytest(source + "def test_bad():\n    record()\n")
    assert outcome.returncode == 1
    assert "more than one process record" in outcome.stdout


def test_a_clean_run_passes(run_pytest: RunPytest) -> None:
    outcome = run_pytest("import os\ndef test_pipe():\n    [os.close(fd) for fd in os.pipe()]\n")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
