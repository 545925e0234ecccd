"""A sweep on SLURM: a batch script that starts Ray on every node by srun and the driver on the first.

Before the time limit, or when the job is preempted, SLURM tells the script, the script the driver; the driver saves
every trial and ends, and the script puts the job back into the queue, where the same command goes on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hrm.errors import Problem, SpecError
from orchestrator.cluster.rendering import GRACE_SECONDS, RESTARTS, ClusterJob


@dataclass(frozen=True, slots=True)
class Slurm:
    """Where in SLURM."""

    time: str = "24:00:00"
    partition: str | None = None
    account: str | None = None
    storage: str = "runs"
    """On a file system that all nodes see."""
    setup: tuple[str, ...] = ()
    """Shell lines before anything else, such as `module load cuda` or `source .venv/bin/activate`."""


_SCRIPT = """\
#!/bin/bash
# The sweep {name} on SLURM:  sbatch {file}
# It goes on where it stopped, after the time limit, a preemption or a failed node, and when submitted again.
{options}
cd "$SLURM_SUBMIT_DIR" || exit 2
{setup}set -uo pipefail

# Ray's nodes and its driver share a token; srun hands the environment on.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN="$(python -c 'import secrets; print(secrets.token_hex(32))')"
export RAY_AUTH_TOKEN

# HEAD_IP chooses among several networks. The port depends on the job, since jobs may share a node.
ip="${{HEAD_IP:-$(hostname -I | cut -d' ' -f1)}}"
port=$((20000 + SLURM_JOB_ID % 20000))
srun --overlap --nodes=1 --ntasks=1 --cpus-per-task={cpus} --nodelist="$SLURMD_NODENAME" \\
    ray start --head --block --node-ip-address="$ip" --port="$port" --temp-dir="/tmp/ray-$SLURM_JOB_ID" \\
    --num-cpus={cpus} --num-gpus={gpus} --dashboard-host=127.0.0.1 &
head=$!
{workers}until (echo > "/dev/tcp/$ip/$port") 2>/dev/null; do
    kill -0 "$head" || exit 3
    sleep 1
done

{sweep} --address "$ip:$port" --nodes {nodes} &
driver=$!
told=no
trap 'told=yes; kill -TERM "$driver"' TERM
until wait "$driver"; ! kill -0 "$driver" 2>/dev/null; do :; done  # a signal ends `wait`, not the driver
wait "$driver"
code=$?
trap - TERM
jobs -p | xargs -r kill 2>/dev/null

# 0: done. 1: done, some trials failed. 2: the input is wrong. 3: the cluster failed. 130: stopped.
again=no
if [[ $told == yes && $code -gt 1 ]]; then again=yes; fi
if [[ $code -gt 2 && $code -ne 130 ]] && (( ${{SLURM_RESTART_COUNT:-0}} < {restarts} )); then again=yes; fi
if [[ $again == yes ]]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
"""
_WORKERS = """\
srun --overlap --nodes={others} --ntasks={others} --ntasks-per-node=1 --cpus-per-task={cpus} \\
    --exclude="$SLURMD_NODENAME" bash -c "until ray start --block --address='$ip:$port' \\
    --num-cpus={cpus} --num-gpus={gpus}; do sleep 5; done" &
"""


def render_slurm(job: ClusterJob, place: Slurm) -> str:
    """The script for `sbatch`. Raises SpecError for values that would break its lines."""
    values = {"--time": place.time, "--partition": place.partition, "--account": place.account}
    for name, value in values.items():
        if value is not None and not re.fullmatch(r"[\w.,:+-]+", value):
            rule = f"must be letters, digits and any of . , : + - _, got {value!r}"
            raise SpecError(Problem(name, rule, "Give what `sbatch` takes"))
    workers = _WORKERS.format(others=job.nodes - 1, cpus=job.cpus, gpus=job.gpus) if job.nodes > 1 else ""
    return _SCRIPT.format(
        name=job.name,
        file=f"{job.label}.sbatch",
        options="\n".join(f"#SBATCH --{option}" for option in _options(job, place)),
        setup="".join(f"{line}\n" for line in place.setup),
        cpus=job.cpus,
        gpus=job.gpus,
        workers=workers,
        sweep=job.sweep(str(job.experiment), place.storage),
        nodes=job.nodes,
        restarts=RESTARTS,
    )


def _options(job: ClusterJob, place: Slurm) -> list[str]:
    options = [f"job-name={job.label}", f"nodes={job.nodes}", "ntasks-per-node=1", f"cpus-per-task={job.cpus}"]
    options += [f"gpus-per-node={job.gpus}"] if job.gpus else []
    options += [f"mem={job.memory_gib}G", f"time={place.time}"]
    options += [f"partition={place.partition}"] if place.partition else []
    options += [f"account={place.account}"] if place.account else []
    return [*options, f"signal=B:TERM@{GRACE_SECONDS}", "requeue", "open-mode=append", "output=%x-%j.log"]
