"""Sweep overhead: from the end of one trial to the first step of the next, and whether it grows with their number.

    python -m benchmarks.overhead [--trials 40]

Runs a real sweep of one-worker trials whose training takes a fraction of a second, one at a time, and reads the times
from the trials' own records. Limit: 1 second.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from analysis.records import read_trial_records
from hrm.records import read_reports

LIMIT_SECONDS = 1.0
EXPERIMENT = """\
tasks: [{kind: red_team, num_train: 64, num_validation: 8, num_test: 8}]
base:
  model: {kind: transformer, hidden_size: 16, num_heads: 2, num_layers: 1, causal: true}
  optimizer: {kind: adamw}
  batch_size: 4
  num_reports: 1
arms: {only: {}}
space: {optimizer.learning_rate: {low: 1e-4, high: 1e-2, log: true}}
search: {trials: TRIALS, sampler: {kind: random}, pruner: {kind: none}}
budget: {axis: steps, amount: 2}
replicas: {seeds: 0}
resources: {launcher: LAUNCHER, max_concurrent_trials: 1}
"""


def measure(trials: int, launcher: str) -> list[float]:
    """Seconds between each trial's last record and the end of the next trial's first step."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "overhead.yaml").write_text(EXPERIMENT.replace("TRIALS", str(trials)).replace("LAUNCHER", launcher))
        command = [sys.executable, "-m", "orchestrator", "sweep", str(root / "overhead.yaml"), "--storage", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        sweep = root / "sweeps" / "overhead"
        reports = [next(read_reports(sweep / "trials" / t.key / "records.jsonl")) for t in read_trial_records(sweep)]
    ordered = sorted(reports, key=lambda report: report.time)
    return [later.steps[0].time - earlier.time for earlier, later in itertools.pairwise(ordered)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--launchers", nargs="+", default=["in_process", "ray_train"])
    options = parser.parse_args()
    print(f"launcher     median s  worst s  median / {LIMIT_SECONDS:g} s limit  last quarter / first quarter")
    for launcher in options.launchers:
        gaps = measure(options.trials, launcher)
        quarter = max(len(gaps) // 4, 1)
        growth = statistics.median(gaps[-quarter:]) / statistics.median(gaps[:quarter])
        median = statistics.median(gaps)
        print(f"{launcher:12} {median:8.3f} {max(gaps):8.3f} {median / LIMIT_SECONDS:20.2f} {growth:29.2f}")


if __name__ == "__main__":
    main()
