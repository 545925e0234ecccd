"""Work in processes: in order, counted, where it pays, and with nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hrm.data import parallel
from hrm.data.parallel import parallel_map


def slow_square(number: int) -> tuple[int, int]:
    time.sleep(0.3)
    return number * number, os.getpid()


def square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def test_quick_work_is_done_here_in_order_and_counted() -> None:
    seen: list[tuple[str, int, int]] = []
    results = list(parallel_map(square, range(50), "squares", lambda *done: seen.append(done)))
    assert results == [(n * n, os.getpid()) for n in range(50)]
    assert seen == [("squares", n + 1, 50) for n in range(50)]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU: no process would pay")
def test_long_work_goes_on_in_processes_in_the_same_order() -> None:
    results = list(parallel_map(slow_square, range(18), "squares"))
    assert [result for result, _ in results] == [n * n for n in range(18)]
    assert results[0][1] == os.getpid()
    assert os.getpid() not in {process for _, process in results[-4:]}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells the processes")
def test_the_processes_end_with_a_killed_builder(tmp_path: Path) -> None:
    script = "from test_parallel import slow_square; from hrm.data.parallel import parallel_map\n"
    script += "if __name__ == '__main__':\n    for _ in parallel_map(slow_square, range(1000), 'x'): pass\n"
    (tmp_path / "build.py").write_text(script)
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(parallel.__file__).parents[2])])
    builder = subprocess.Popen([sys.executable, tmp_path / "build.py"], env={**os.environ, "PYTHONPATH": path})
    deadline = time.monotonic() + 60
    while len(found := psutil.Process(builder.pid).children(recursive=True)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(2)  # they have begun to work
    os.kill(builder.pid, signal.SIGKILL)
    builder.wait()
    _, alive = psutil.wait_procs(found, timeout=10)
    assert not alive
