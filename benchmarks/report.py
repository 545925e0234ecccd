"""The report of a sweep of long trials: how long `report` takes, and how much memory.

    python -m benchmarks.report [--trials 200] [--points 10000] [--keep FOLDER]

A sweep goes through the real ledger without a cluster; then each trial's records are written anew with 10,000 points:
once as optimizer steps in 100 evaluations, once as 10,000 evaluations. Limits: 20 seconds, 1 GiB, for the command as a
person runs it. That no spike is lost to thinning is a test, not a benchmark.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from analysis.records import TrialRecord, read_trial_records
from benchmarks.scale import NAME, line, sweep_of, without_ray

SECONDS, BYTES = 20.0, 2**30
FORMS = {"100 evaluations": 100, "10,000 evaluations": 10_000}


def lengthen(sweep: Path, points: int, reports: int) -> None:
    """Give every trial that many steps in that many reports."""
    for number, trial in enumerate(read_trial_records(sweep)):
        lines = _lines(trial, points, min(reports, points), number)
        (sweep / "trials" / trial.key / "records.jsonl").write_text("".join(lines))


def _lines(trial: TrialRecord, points: int, reports: int, seed: int) -> Iterator[str]:
    """Lines as `hrm.records.Report` writes them. A loss that falls to the trial's own, with noise and a spike."""
    random = np.random.default_rng(seed)
    rate = 1.0 + 0.1 * random.random()
    losses = (trial.objective or 1.0) + 3.0 / (1.0 + np.arange(points) / 200) + 0.05 * random.random(points)
    losses[points // 3] += 20.0
    each, values = points // reports, losses.tolist()
    for index in range(1, reports + 1):
        taken = range((index - 1) * each + 1, index * each + 1)
        loss = values[taken[-1] - 1]
        validation = {"loss": loss, "perplexity": math.exp(loss), "token_accuracy": 0.71, "exact_accuracy": 0.0}
        where = {"index": index, "progress": _progress(taken[-1], rate), "time": 1.7e9, "validation": validation}
        steps = [{"progress": _progress(s, rate), "time": 1.7e9 + s, "metrics": _metrics(values[s - 1])} for s in taken]
        rest = {"system": {"cpu_percent": 98.5}, "checkpoint": "", "facts": {}}
        yield json.dumps({**where, "steps": steps, **rest}, separators=(",", ":")) + "\n"


def _progress(step: int, rate: float) -> dict[str, float]:
    return {
        "step": step,
        "examples": 8 * step,
        "tokens": 825 * step,
        "flops": 7e9 * step,
        "seconds": 0.0123 * rate * step,
    }


def _metrics(loss: float) -> dict[str, float]:
    small = {"loss": loss, "token_accuracy": 0.00363636363636, "exact_accuracy": 0.0, "segments": 1.0}
    return {**small, "learning_rate": 1.8012653865e-4, "gradient_norm": 4.8965978}


def measure(folder: Path) -> None:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "orchestrator", "report", NAME, "--storage", str(folder)]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"the report failed with {process.returncode}"
    line("seconds", time.monotonic() - began, SECONDS, "s")
    line("  of a processor", usage.ru_utime + usage.ru_stime, SECONDS, "s")
    line("memory", usage.ru_maxrss * 1024, BYTES, "B")
    sweep = folder / "sweeps" / NAME
    print(f"{'report.html':52} {(sweep / 'report.html').stat().st_size / 2**20:10.4g} MiB")


def main() -> None:
    """Both forms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--keep", type=Path, help="keep the sweep in this folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        sweep_of(folder, options.trials, _run=without_ray)
        sweep = folder / "sweeps" / NAME
        for words, reports in FORMS.items():
            lengthen(sweep, options.points, reports)
            size = sum(path.stat().st_size for path in sweep.glob("trials/*/records.jsonl"))
            print(f"{options.trials} trials of {options.points:,} points in {words}, {size / 2**20:.0f} MiB of records")
            measure(folder)


if __name__ == "__main__":
    main()
