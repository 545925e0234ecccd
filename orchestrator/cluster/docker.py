"""A sweep in a container on one machine: the script that builds the image and runs it.

The flags are those that NVIDIA's PyTorch container asks for: the host's shared memory and no limit on locked memory.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from hrm.errors import Problem, SpecError
from orchestrator.cluster.rendering import GRACE_SECONDS, IN_IMAGE, ClusterJob, check_recipes
from orchestrator.doctor.gpus import CONTAINER

GPU_FLAGS = "--gpus all --ipc=host --ulimit memlock=-1 --ulimit stack=67108864"
CPU_FLAGS = "--ipc=host"


@dataclass(frozen=True, slots=True)
class Docker:
    """How."""

    base: str = CONTAINER
    """Of the image with GPUs; a newer one for newer GPUs."""
    storage: str = "runs"


_SCRIPT = """\
#!/bin/bash
# The sweep {name} in a container:  bash {file}   (in the repository, where the Dockerfile is)
# It goes on where it stopped when it is run again. Ctrl-C saves every trial and ends it.
set -euo pipefail
docker build --target {target} {base}--tag hrm-orchestrator:{target} .
mkdir -p {storage}
exec docker run --rm --init --stop-timeout {grace} {flags} \\
    --user "$(id -u):$(id -g)" --env HOME=/tmp --env USER=hrm \\
    --volume "$(realpath {storage}):/storage" \\
    --volume "$(realpath {experiment}):{inside}:ro" \\
    hrm-orchestrator:{target} {arguments}
"""


def render_docker(job: ClusterJob, place: Docker) -> str:
    """The script. Raises SpecError for a base that is no image's name."""
    check_recipes(job)
    if not place.base or any(character.isspace() for character in place.base):
        raise SpecError(Problem("--base", f"must name an image, got {place.base!r}", "Give name:tag"))
    inside = f"{IN_IMAGE}/experiments/{job.experiment.name}"
    return _SCRIPT.format(
        name=job.name,
        file=f"{job.label}.docker.sh",
        target="gpu" if job.gpus else "cpu",
        base=f"--build-arg BASE={shlex.quote(place.base)} " if job.gpus else "",
        storage=shlex.quote(place.storage),
        grace=GRACE_SECONDS,
        flags=GPU_FLAGS if job.gpus else CPU_FLAGS,
        experiment=shlex.quote(str(job.experiment)),
        inside=inside,
        arguments=job.sweep(inside, "/storage").removeprefix("python -m orchestrator "),
    )
