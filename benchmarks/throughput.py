"""Training steps per second of each model, against plain matrix products and against the original HRM.

    python -m benchmarks.throughput [--original PATH] [--sizes large small] [--dtypes bfloat16 float32] [--models ...]

Everything of one size and dtype runs in one process, in short alternating rounds, each arm next to the limit
(`torch.matmul` at the same shapes, dtype and threads), so that a machine that slows down slows all of them; medians of
the ratios are shown. Peak memory is that of a process of its own. PATH is a work tree of sapientinc/HRM.
On any device: steps/s = its matmul FLOP/s x share / FLOPs of a step. `--device cuda` runs the same code and prints the
same; it has not been run on one yet.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from benchmarks.arms import Arm, Dtype

ORIGINAL = "original"
BARS = {("hrm", "bfloat16"): 1.7, ("hrm", "float32"): 1.25, ("hrm_without_target", "bfloat16"): 2.5}
"""Times the original's steps per second."""
GOALS = {
    ("large", "bfloat16"): 0.70,
    ("large", "float32"): 0.75,
    ("small", "bfloat16"): 0.50,
    ("small", "float32"): 0.50,
}
"""Share of the limit that the faithful HRM should reach."""
WARM_UP_SECONDS, ROUND_SECONDS, LIMIT_SECONDS = 0.5, 0.7, 0.3


@dataclass
class Measured:
    """One arm at one size and dtype; lists have one entry per round."""

    size: str
    dtype: Dtype
    arm: str
    step_flops: float
    losses: list[float]
    """After the first step and after the last."""
    peak_mebibytes: float | None = None
    seconds: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    """FLOP/s of the limit, just before."""
    times_original: float | None = None
    cores_used_by_others: float = 0.0
    """By other processes during the rounds; ratios are to be trusted on a quiet machine only."""

    @property
    def steps_per_second(self) -> float:
        return 1.0 / statistics.median(self.seconds)

    @property
    def flops_per_second(self) -> float:
        return self.step_flops * self.steps_per_second

    @property
    def share(self) -> float:
        """Of the limit."""
        pairs = zip(self.seconds, self.limits, strict=True)
        return statistics.median(self.step_flops / seconds / limit for seconds, limit in pairs)


def main() -> None:
    """Measure, print the tables and the verdicts."""
    options = parse()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(options.threads)  # read by torch when it is first imported: here nobody has yet
    import torch

    torch.set_num_threads(options.threads)
    if options.peak:
        print(peak_of_this_process(options))
        return
    results = []
    for size in options.sizes:
        for dtype in options.dtypes:
            measured = measure(size, dtype, options)
            results += measured
            if not options.json:
                print_table(measured, options)
    if options.json:
        rates = ("steps_per_second", "flops_per_second", "share")
        print(json.dumps([asdict(m) | {name: getattr(m, name) for name in rates} for m in results], indent=1))
    else:
        print_verdicts(results)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", type=Path, help="a work tree of sapientinc/HRM, to be measured beside")
    parser.add_argument("--sizes", nargs="+", default=["large", "small"], choices=["large", "small"])
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"], choices=["bfloat16", "float32"])
    parser.add_argument("--models", nargs="+", help="arms: kinds of models, hrm_without_target; default all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=physical_cores(), help="default: all physical cores")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--eager", action="store_true", help="do not compile our blocks, as in a short training")
    parser.add_argument("--compile-original", action="store_true", help="torch.compile the original")
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    return parser.parse_args()


def physical_cores() -> int:
    """The cores that this process may use, a core with two hardware threads counted once."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


def arm_names(options: argparse.Namespace) -> list[str]:
    """What is measured, the original last."""
    from benchmarks.arms import SIZES, specs

    known = list(specs(SIZES["small"]))
    unknown = set(options.models or []) - set(known)
    if unknown:
        sys.exit(f"error: --models: there is no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return (options.models or known) + ([ORIGINAL] if options.original else [])


def build(name: str, size: str, dtype: Dtype, folder: Path, options: argparse.Namespace) -> Arm:
    """The arm, ready for its first step. The original starts from our faithful HRM's weights and rows."""
    import torch

    from benchmarks.arms import SIZES, OurArm, specs

    sizes, device = SIZES[size], torch.device(options.device)
    spec = specs(sizes)["hrm" if name == ORIGINAL else name]
    ours = OurArm(spec, sizes, dtype, folder / name, device, options.threads, not options.eager)
    if name != ORIGINAL:
        return ours
    from benchmarks.original import OriginalArm

    return OriginalArm(options.original, ours.training, dtype, options.compile_original)


def measure(size: str, dtype: Dtype, options: argparse.Namespace) -> list[Measured]:
    """All arms of one table, in alternating rounds."""
    import torch

    from benchmarks.arms import SIZES, Limit, seconds_per_step

    device, names = torch.device(options.device), arm_names(options)
    # First, while this process is small: on Linux a child's high-water mark starts at its parent's.
    peaks = {name: None if options.no_memory else peak(name, size, dtype, options) for name in names}
    limit = Limit(SIZES[size], dtype, device)
    seconds_per_step(limit.step, WARM_UP_SECONDS, device)
    results: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory() as folder:
        arms = {name: build(name, size, dtype, Path(folder), options) for name in names}
        for name, arm in arms.items():
            arm.step()
            results[name] = Measured(size, dtype, name, arm.flops, [arm.loss], peaks[name])
            seconds_per_step(arm.step, WARM_UP_SECONDS, device)
        busy = busy_seconds_of_others()
        started = time.perf_counter()
        for number in range(options.rounds):
            for name in names if number % 2 == 0 else reversed(names):
                results[name].limits.append(limit.flops / seconds_per_step(limit.step, LIMIT_SECONDS, device))
                results[name].seconds.append(seconds_per_step(arms[name].step, ROUND_SECONDS, device))
        others = (busy_seconds_of_others() - busy) / (time.perf_counter() - started)
        for name, arm in arms.items():
            results[name].losses.append(arm.loss)
            results[name].cores_used_by_others = others
    compare(results)
    return list(results.values())


def busy_seconds_of_others() -> float:
    """CPU seconds that other processes have used until now."""
    machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
    busy = sum(machine) - machine.idle - getattr(machine, "iowait", 0.0) - getattr(machine, "guest", 0.0)
    return float(busy - own.user - own.system)


def compare(results: dict[str, Measured]) -> None:
    """Set `times_original` of the arms of HRM: the median over rounds."""
    if ORIGINAL not in results:
        return
    theirs = results[ORIGINAL].seconds
    for name, result in results.items():
        if name in {arm for arm, _ in BARS}:
            pairs = zip(theirs, result.seconds, strict=True)
            result.times_original = statistics.median(original / ours for original, ours in pairs)


def peak(name: str, size: str, dtype: Dtype, options: argparse.Namespace) -> float:
    """MiB at the most, in a process that makes two steps of the arm (the second has the optimizer's state)."""
    command = [sys.executable, "-m", "benchmarks.throughput", "--peak", name, "--sizes", size, "--dtypes", dtype]
    command += ["--threads", str(options.threads), "--device", options.device]
    command += ["--eager"] if options.eager else []
    command += ["--compile-original"] if options.compile_original else []
    command += ["--original", str(options.original)] if options.original else []
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def peak_of_this_process(options: argparse.Namespace) -> float:
    """MiB, after two steps: of the device where it has a memory of its own, else resident."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        arm = build(options.peak, options.sizes[0], options.dtypes[0], Path(folder), options)
        arm.step()
        arm.step()
    if options.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(options.device) / 2**20
    high_water = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return high_water / (2**20 if sys.platform == "darwin" else 2**10)


def print_table(results: list[Measured], options: argparse.Namespace) -> None:
    first = results[0]
    limit = statistics.median(value for result in results for value in result.limits)
    others = f"; other processes used {first.cores_used_by_others:.2f} cores" * (first.cores_used_by_others > 0.05)
    place = f"{first.size}, {first.dtype}, {options.threads} threads, {options.device}"
    blocks = "eager" if options.eager else "compiled"
    original = "compiled" if options.compile_original else "eager"
    print(f"\n{place}, blocks {blocks}, original {original}: the limit is {limit / 1e9:.0f} GFLOP/s{others}")
    print(
        "model                  steps/s  GFLOP/step  GFLOP/s  of the limit  x original  peak MiB  loss, first to last"
    )
    for m in results:
        times = "-" if m.times_original is None else f"{m.times_original:.2f}"
        memory = "-" if m.peak_mebibytes is None else f"{m.peak_mebibytes:.0f}"
        print(
            f"{m.arm:20} {m.steps_per_second:9.3f} {m.step_flops / 1e9:11.1f} {m.flops_per_second / 1e9:8.0f} "
            f"{m.share:13.2f} {times:>11} {memory:>9}  {m.losses[0]:.4f} {m.losses[1]:.4f}",
            flush=True,
        )


def print_verdicts(results: list[Measured]) -> None:
    """The bars (against the original) and the goals (against the limit) of what was measured."""
    print()
    for m in results:
        bar = BARS.get((m.arm, m.dtype))
        if bar and m.times_original:
            verdict = "held" if m.times_original >= bar else "MISSED"
            print(f"bar   {m.size} {m.dtype} {m.arm}: {m.times_original:.2f} x the original, at least {bar}: {verdict}")
    for m in results:
        if m.arm == "hrm":
            goal = GOALS[m.size, m.dtype]
            verdict = "reached" if m.share >= goal else "not reached"
            print(f"goal  {m.size} {m.dtype} {m.arm}: {m.share:.2f} of the limit, goal {goal:.2f}: {verdict}")


if __name__ == "__main__":
    main()
