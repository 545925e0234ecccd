"""The servers of the sweep's own Ray cluster die: the same command goes on with another cluster.

Really done: the raylet and the GCS of the driver's cluster are killed by signals while trials train.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from command import start, wait_for
from steady import SERVERS, TRIAL_TITLES, check_equal, family, finish, has_reports, sweep, titled, wait_until_gone

ALONE = """\
import subprocess, sys
from orchestrator.cluster import guard

def stopping():
    return sys.argv[1] == "stopping"

server = subprocess.Popen([sys.argv[2], "-c", "import time; time.sleep(60)"])
guard._SERVERS = (guard._name(guard.psutil.Process(server.pid)),)
with guard.guarded_own(stopping):
    server.kill()
    import time
    time.sleep(30)
"""


@pytest.mark.parametrize(("state", "code"), [("running", 3), ("stopping", 130)])
def test_without_a_command_to_start_again_the_death_of_the_cluster_ends_the_process(state: str, code: int) -> None:
    """The server is fake: a process that sleeps."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE, state, sys.executable], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert "the same command goes on" in done.stderr


def test_a_head_that_nobody_reaches_ends_the_command_with_a_sentence() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        head = f"127.0.0.1:{probe.getsockname()[1]}"
    code = (
        "import sys, time\nfrom orchestrator.cluster import guard\nguard._UNREACHABLE_SECONDS = 2\n"
        "with guard.guarded_standing(sys.argv[1]):\n    time.sleep(30)"
    )
    done = subprocess.run([sys.executable, "-c", code, head], capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert f"its head {head} was unreachable" in done.stderr


@pytest.mark.slow
def test_the_command_outlives_its_raylet_and_then_its_gcs(storage: Path, undisturbed: Path) -> None:
    driver = start(*sweep(storage))
    for server, key in zip(SERVERS, ("hrm-search-0000", "transformer-search-0001"), strict=True):
        wait_for(lambda key=key: has_reports(storage, key, 1), 150)
        victims: list[psutil.Process] = wait_for(lambda server=server: titled(family(driver), server))
        heavy = titled(family(driver), *TRIAL_TITLES, *SERVERS)
        victims[0].kill()
        wait_until_gone(heavy)
    said = finish(driver, seconds=300)
    assert said.count("going on with another one") == 2
    check_equal(storage, undisturbed)
