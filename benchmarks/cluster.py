"""How busy a sweep keeps a cluster: 8 nodes with 8 logical GPUs each, trials whose durations differ by up to 4 times.

    python -m benchmarks.cluster [--trials 2560] [--nodes 8] [--gpus 8] [--shortest 3]

The nodes are simulated on this machine (`ray.cluster_utils.Cluster`) and a trial holds its logical GPU without using
it, in one light process. Ledger, journal, records and Ray are real. Utilisation is GPU-seconds held by trials over
GPUs x wall clock; limit 0.95. Of the two figures the first counts from the moment when every process was up (here two
cores start all of them, on a cluster each node its own) to the end of the last trial, so that it holds the tail in
which the queue is empty; the second ends where the queue does. A search alone: replicas, which wait for its best
trials, are left out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import psutil
import ray
from ray import tune
from ray.cluster_utils import Cluster

from benchmarks.scale import line, sweep_of
from benchmarks.trivial import UnevenTrial
from hrm.records import read_reports
from orchestrator.tuning import execute

LIMIT = 0.95
QUIET = {"enable_metrics_collection": False, "task_events_report_interval_ms": 0, "metrics_report_interval_ms": 600_000}
"""Eight raylets and their agents share this machine's cores: they do not measure themselves."""
Held = list[tuple[float, float]]
"""Begin and end of each time that a trial held its GPU."""


def utilisation(held: Held, gpus: int, begin: float, end: float) -> float:
    """The share of the GPUs' time between two moments in which a trial held them."""
    busy = sum(max(0.0, min(until, end) - max(since, begin)) for since, until in held)
    return busy / (gpus * (end - begin))


def measure(folder: Path, trials: int, nodes: int, gpus: int, shortest: float) -> None:
    """Run the sweep and read from its records when each GPU was held."""
    args = {"num_cpus": gpus, "num_gpus": gpus, "include_dashboard": False, "_system_config": QUIET}
    cluster = Cluster(initialize_head=True, head_node_args=args)
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=gpus, num_gpus=gpus)
        before = psutil.virtual_memory().used
        kind = type("UnevenTrial", (UnevenTrial,), {"shortest": shortest})
        trainable = tune.with_resources(kind, tune.PlacementGroupFactory([{"CPU": 1.0, "GPU": 1.0}]))
        asked = [
            "resources={launcher: ray_train, gpus_per_worker: 1, cpus_per_worker: 1}",
            "search.pruner={kind: none}",
            "replicas.seeds=0",
            "base.num_reports=1",
        ]
        began = time.monotonic()
        run = partial(execute, trainable=trainable)
        outcome, _, _, slots = sweep_of(folder, trials, *asked, address=cluster.address, execute=run)
        assert outcome.complete
        assert slots == nodes * gpus
        print(f"{trials} trials on {slots} GPUs of {nodes} nodes: {time.monotonic() - began:.0f} s in all")
        print(f"memory in use at the end, more than before: {(psutil.virtual_memory().used - before) / 2**30:.1f} GiB")
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]
    show(folder, slots)


def show(folder: Path, gpus: int) -> None:
    """Both figures, and how uneven the trials were."""
    reports = [list(read_reports(path)) for path in folder.glob("sweeps/*/trials/*/records.jsonl")]
    held = [(r.system["held_from"], r.system["held_until"]) for trial in reports for r in trial]
    seconds = sorted(trial[-1].system["held_until"] - trial[0].system["held_from"] for trial in reports)
    first_of: dict[float, float] = {}
    last_start = 0.0
    for trial in reports:
        process, start = trial[0].system["process_id"], trial[0].system["held_from"]
        first_of[process] = min(start, first_of.get(process, start))
        last_start = max(last_start, start)
    up, end = max(first_of.values()), max(until for _, until in held)
    print(f"trials took {seconds[0]:.1f} to {seconds[-1]:.1f} s; {len(first_of)} processes")
    print(
        f"all processes up {up - min(since for since, _ in held):.1f} s after the first; tail {end - last_start:.1f} s"
    )
    line("utilisation, all processes up to the last end", utilisation(held, gpus, up, end), LIMIT, "")
    line("utilisation, all processes up to the last start", utilisation(held, gpus, up, last_start), LIMIT, "")


def main() -> None:
    """Print both figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2560)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--shortest", type=float, default=3.0, help="seconds of the shortest trial")
    parser.add_argument("--keep", type=Path, help="keep the sweep in this folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        measure(folder, options.trials, options.nodes, options.gpus, options.shortest)


if __name__ == "__main__":
    main()
