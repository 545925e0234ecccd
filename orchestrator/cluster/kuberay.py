"""A sweep on Kubernetes: a RayJob for KubeRay 1.5.1 or newer, with its volume and the experiment's file.

The head runs the driver and no trial. After a failure KubeRay starts a new cluster and the same command, which goes on
from what the volume (or the store) holds. Ray's token comes from a Secret that the operator makes.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import yaml

from hrm.errors import Problem, SpecError
from orchestrator.cluster.rendering import (
    GRACE_SECONDS,
    IN_IMAGE,
    RESTARTS,
    ClusterJob,
    check_label,
    check_recipes,
)

LONGEST_NAME = 47
"""KubeRay's limit for a RayJob: it makes names of services and pods from it."""
STORAGE = "/storage"
_HEAD_OF = "ray.io/node-type=head,ray.io/originated-from-cr-name"
"""KubeRay's labels of the head's pod; the value of the second is the RayJob's name."""
Data = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """Where in Kubernetes."""

    image: str
    namespace: str = "default"
    claim: str | None = None
    """An existing PersistentVolumeClaim; None: one of the job's own."""
    storage_gib: int = 100


def render_rayjob(job: ClusterJob, place: Kubernetes) -> str:
    """The YAML for `kubectl apply`. Raises SpecError for names that Kubernetes would refuse."""
    check_recipes(job)
    check_label("--name", job.label, LONGEST_NAME)
    check_label("--namespace", place.namespace)
    if place.claim is not None:
        check_label("--claim", place.claim)
    if place.storage_gib < 1:
        raise SpecError(Problem("--storage-gib", f"must be >= 1, got {place.storage_gib}", "Raise it"))
    if not place.image or any(character.isspace() for character in place.image):
        raise SpecError(Problem("--image", f"must name an image, got {place.image!r}", "Give name:tag"))
    parts = [_experiment(job, place), _rayjob(job, place)]
    if place.claim is None:
        parts.insert(1, _claim(job, place))
    kubectl = f"kubectl -n {place.namespace}"
    header = (
        f"# The sweep {job.name} as a RayJob. Needs KubeRay 1.5.1 or newer and the image {place.image}.\n"
        f"#   kubectl apply -f {job.label}.rayjob.yaml\n"
        f"#   {kubectl} get rayjob {job.label}\n"
        f"#   {kubectl} exec $({kubectl} get pod -o name -l {_HEAD_OF}={job.label}) -- \\\n"
        f"#       python -m orchestrator status {job.name} --storage {STORAGE}\n"
        "# Some failed trials are an answer, not a failure: exit code 1 of the sweep ends the job as succeeded.\n"
    )
    if job.store:
        header += f"# Credentials of the store come from the Secret {job.label}-store, as environment variables.\n"
    return header + yaml.dump_all(parts, Dumper=_Dumper, sort_keys=False, width=1000)


def _experiment(job: ClusterJob, place: Kubernetes) -> Data:
    data = {job.experiment.name: job.experiment.read_text()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _named(f"{job.label}-experiment", place), "data": data}


def _claim(job: ClusterJob, place: Kubernetes) -> Data:
    """With a store only the head mounts it."""
    spec = {
        "accessModes": ["ReadWriteOnce" if job.store else "ReadWriteMany"],
        "resources": {"requests": {"storage": f"{place.storage_gib}Gi"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _named(f"{job.label}-storage", place),
        "spec": spec,
    }


def _rayjob(job: ClusterJob, place: Kubernetes) -> Data:
    command = job.sweep(
        f"{IN_IMAGE}/experiments/{job.experiment.name}", STORAGE, "--address", "auto", "--nodes", str(job.nodes + 1)
    )
    head = {"rayStartParams": {"num-cpus": "0", "num-gpus": "0", "dashboard-host": "0.0.0.0"}}
    workers = {
        "groupName": "workers",
        "replicas": job.nodes,
        "minReplicas": job.nodes,
        "maxReplicas": job.nodes,
        "rayStartParams": {"num-gpus": str(job.gpus)},
        "template": {"spec": _worker(job, place)},
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": _named(job.label, place),
        "spec": {
            "entrypoint": f"{command} || test $? -eq 1",
            "submissionMode": "HTTPMode",
            "backoffLimit": RESTARTS,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 600,
            "rayClusterSpec": {
                "rayVersion": version("ray"),
                "authOptions": {"mode": "token"},
                "headGroupSpec": {**head, "template": {"spec": _head(job, place)}},
                "workerGroupSpecs": [workers],
            },
        },
    }


def _head(job: ClusterJob, place: Kubernetes) -> Data:
    file = job.experiment.name
    ports = [("gcs-server", 6379), ("dashboard", 8265), ("client", 10001)]
    container = _container("ray-head", job, place, cpus=2, memory_gib=8, gpus=0)
    container["ports"] = [{"containerPort": port, "name": name} for name, port in ports]
    container["volumeMounts"] += [
        {"name": "storage", "mountPath": STORAGE},
        {"name": "experiment", "mountPath": f"{IN_IMAGE}/experiments/{file}", "subPath": file, "readOnly": True},
    ]
    volumes = [_storage(job, place), {"name": "experiment", "configMap": {"name": f"{job.label}-experiment"}}]
    return _pod(container, volumes, memory_gib=8)


def _worker(job: ClusterJob, place: Kubernetes) -> Data:
    container = _container("ray-worker", job, place, job.cpus, job.memory_gib, job.gpus)
    volumes = []
    if not job.store:
        container["volumeMounts"].append({"name": "storage", "mountPath": STORAGE})
        volumes = [_storage(job, place)]
    pod = _pod(container, volumes, job.memory_gib)
    if job.gpus:
        pod["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    return pod


def _container(name: str, job: ClusterJob, place: Kubernetes, cpus: int, memory_gib: int, gpus: int) -> Data:
    amounts: Data = {"cpu": str(cpus), "memory": f"{memory_gib}Gi"}
    amounts |= {"nvidia.com/gpu": str(gpus)} if gpus else {}
    container: Data = {
        "name": name,
        "image": place.image,
        "resources": {"limits": amounts, "requests": dict(amounts)},
        "volumeMounts": [{"name": "shared-memory", "mountPath": "/dev/shm"}],
    }
    if job.store:
        container["envFrom"] = [{"secretRef": {"name": f"{job.label}-store", "optional": True}}]
    return container


def _pod(container: Data, volumes: list[Data], memory_gib: int) -> Data:
    """Shared memory counts as the pod's; containers have 64 MiB of it unless asked."""
    shared = {"medium": "Memory", "sizeLimit": f"{max(1, memory_gib // 4)}Gi"}
    return {
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "containers": [container],
        "volumes": [{"name": "shared-memory", "emptyDir": shared}, *volumes],
    }


def _storage(job: ClusterJob, place: Kubernetes) -> Data:
    return {"name": "storage", "persistentVolumeClaim": {"claimName": place.claim or f"{job.label}-storage"}}


def _named(name: str, place: Kubernetes) -> Data:
    return {"name": name, "namespace": place.namespace}


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as they are, so that the experiment stays readable."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
_Dumper.ignore_aliases = lambda self, data: True  # type: ignore[method-assign]
