"""`render`: a sweep as files for Kubernetes, SLURM or Docker. Each is written to a folder, or to standard output."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hrm.errors import Problem, SpecError
from orchestrator.commands import AddCommand, sentence


def add_render_commands(
    commands: Any,
    add_command: AddCommand,
    experiment_options: Callable[[argparse.ArgumentParser], None],
) -> None:
    """Add `render` and what is below it. The functions give a command the options that all (experiments') have."""
    text = "write a sweep as files for Kubernetes, SLURM or Docker, ready to apply"
    parser = commands.add_parser("render", help=text, description=sentence(text))
    inside = parser.add_subparsers(required=True, metavar="target")

    kuberay = add_command(inside, "kuberay", _kuberay, "a RayJob for KubeRay, with its volume and the experiment")
    _job_options(kuberay, experiment_options)
    kuberay.add_argument("--image", default="hrm-orchestrator:latest", help="with the product (default: %(default)s)")
    kuberay.add_argument("--namespace", default="default")
    kuberay.add_argument("--claim", help="an existing PersistentVolumeClaim (default: one of the job's own)")
    kuberay.add_argument("--storage-gib", type=int, default=100, help="size of a claim of its own (default: 100)")

    slurm = add_command(inside, "slurm", _slurm, "a batch script that requeues itself")
    _job_options(slurm, experiment_options)
    slurm.add_argument("--time", default="24:00:00", help="the limit of one run of the job (default: 24:00:00)")
    slurm.add_argument("--partition")
    slurm.add_argument("--account")
    slurm.add_argument("--setup", action="append", default=[], metavar="LINE",
                       help="a shell line to run first, such as 'module load cuda' (again for more)")  # fmt: skip

    docker = add_command(inside, "docker", _docker, "a script that builds the image and runs the sweep in it")
    _job_options(docker, experiment_options, nodes=False)
    docker.add_argument("--base", help="NVIDIA's container to build on (default: the one of the Dockerfile)")


def _job_options(
    parser: argparse.ArgumentParser, experiment_options: Callable[[argparse.ArgumentParser], None], nodes: bool = True
) -> None:
    experiment_options(parser)
    parser.add_argument("--name", help="the sweep's name (default: the file's)")
    parser.add_argument("--store", help="URI of a store for checkpoints and data, such as s3://bucket/prefix")
    parser.add_argument("--output", type=Path, help="the folder to write to (default: standard output)")
    if nodes:
        parser.add_argument("--nodes", type=int, default=1, help="nodes that train (default: 1)")
    parser.add_argument("--cpus", type=int, default=8, help="of each node (default: 8)")
    parser.add_argument("--gpus", type=int, default=0, help="of each node (default: 0)")
    parser.add_argument("--memory", type=int, default=32, help="GiB of each node (default: 32)")


def _kuberay(options: argparse.Namespace) -> int:
    from orchestrator.cluster.kuberay import Kubernetes, render_rayjob

    job = _job(options)
    place = Kubernetes(options.image, options.namespace, options.claim, options.storage_gib)
    return _give(options, f"{job.label}.rayjob.yaml", render_rayjob(job, place))


def _slurm(options: argparse.Namespace) -> int:
    from orchestrator.cluster.slurm import Slurm, render_slurm

    job = _job(options)
    place = Slurm(options.time, options.partition, options.account, str(options.storage), tuple(options.setup))
    return _give(options, f"{job.label}.sbatch", render_slurm(job, place))


def _docker(options: argparse.Namespace) -> int:
    from orchestrator.cluster.docker import Docker, render_docker
    from orchestrator.doctor.gpus import CONTAINER

    job = _job(options)
    script = render_docker(job, Docker(options.base or CONTAINER, str(options.storage)))
    return _give(options, f"{job.label}.docker.sh", script)


def _job(options: argparse.Namespace) -> Any:
    from orchestrator.cluster.rendering import ClusterJob, check_job

    job = ClusterJob(
        experiment=options.experiment,
        name=options.name or options.experiment.stem,
        overrides=tuple(options.overrides),
        smoke=options.smoke,
        store=options.store,
        nodes=getattr(options, "nodes", 1),
        cpus=options.cpus,
        gpus=options.gpus,
        memory_gib=options.memory,
    )
    check_job(job, options.storage)
    return job


def _give(options: argparse.Namespace, file: str, text: str) -> int:
    """Write the file and say how, or print it."""
    if options.output is None:
        print(json.dumps({"file": file, "text": text}) if options.json else text, end="\n" if options.json else "")
        return 0
    path = options.output / file
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise SpecError(Problem(str(path), f"cannot be written: {error.strerror}", "Give another --output")) from error
    print(json.dumps({"path": str(path)}) if options.json else path)
    return 0
