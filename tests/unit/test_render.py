"""Rendered jobs: Kubernetes' schemas accept them, their parsers read them, and the SLURM script does what it says.

Nothing here reaches a Kubernetes, SLURM or Docker. The SLURM script runs for real in bash, with fakes of `srun`,
`scontrol`, `hostname`, Ray and the driver.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import bashlex
import kubernetes_validate
import pytest
import yaml
from dockerfile_parse import DockerfileParser

from orchestrator.cli import main
from tests.command import ROOT
from tests.unit.small_experiment import SMALL

RAYJOB_FIELDS = {
    "entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
    "rayClusterSpec",
}  # fmt: skip
"""Of ray.io/v1, of those that we use, like the next three: KubeRay drops a field that it does not know, in silence."""
CLUSTER_FIELDS = {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
HEAD_FIELDS = {"rayStartParams", "template"}
WORKER_FIELDS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
SBATCH_OPTIONS = {
    "job-name", "nodes", "ntasks-per-node", "cpus-per-task", "gpus-per-node", "mem", "time", "partition", "account",
    "signal", "requeue", "open-mode", "output",
}  # fmt: skip
KUBERNETES = "1.31.0"


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    path = tmp_path / "small_one.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


def rendered(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> str:
    assert main(["render", *map(str, arguments)]) == code
    return capsys.readouterr().out


def objects(text: str) -> dict[str, Any]:
    return {data["kind"]: data for data in yaml.safe_load_all(text)}


# --- Kubernetes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [(), ("--gpus", "8", "--nodes", "2", "--cpus", "64"), ("--store", "s3://bucket/runs"), ("--claim", "mine")],
)
def test_kubernetes_accepts_every_object(
    experiment: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    found = objects(rendered(capsys, "kuberay", experiment, *options))
    job = found.pop("RayJob")
    for data in found.values():
        kubernetes_validate.validate(data, KUBERNETES, strict=True)
    assert job["apiVersion"] == "ray.io/v1"
    assert job["spec"].keys() == RAYJOB_FIELDS
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster.keys() == CLUSTER_FIELDS
    assert cluster["headGroupSpec"].keys() == HEAD_FIELDS
    assert [group.keys() for group in cluster["workerGroupSpecs"]] == [WORKER_FIELDS]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, **group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        mounted = {mount["name"] for c in pod["spec"]["containers"] for mount in c["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}


def test_the_rayjob_starts_the_sweep_so_that_a_restart_goes_on(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--gpus", 4, "--cpus", 32, "--nodes", 3, "--set", "search.trials=4", "--image", "registry/hrm:1")
    found = objects(rendered(capsys, "kuberay", experiment, *map(str, options)))
    spec = found["RayJob"]["spec"]
    command, code = spec["entrypoint"].split(" || ")
    words = shlex.split(command)
    assert words[:4] == ["python", "-m", "orchestrator", "sweep"]
    assert words[words.index("--address") + 1] == "auto"
    assert words[words.index("--nodes") + 1] == "4"  # the head is one, without trials
    assert words[words.index("--set") + 1] == "search.trials=4"
    assert code == "test $? -eq 1"  # failed trials are an answer: KubeRay is not to run the sweep again for them
    assert (spec["submissionMode"], spec["backoffLimit"]) == ("HTTPMode", 5)
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    head, worker = (
        group["template"]["spec"]["containers"][0]
        for group in (spec["rayClusterSpec"]["headGroupSpec"], spec["rayClusterSpec"]["workerGroupSpecs"][0])
    )
    assert spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert worker["resources"]["limits"] == {"cpu": "32", "memory": "32Gi", "nvidia.com/gpu": "4"}
    assert {container["image"] for container in (head, worker)} == {"registry/hrm:1"}
    storage = words[words.index("--storage") + 1]
    for container in (head, worker):
        assert {storage, "/dev/shm"} <= {mount["mountPath"] for mount in container["volumeMounts"]}
    assert found["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]
    assert words[4] in {mount["mountPath"] for mount in head["volumeMounts"]}
    assert found["ConfigMap"]["data"][Path(words[4]).name] == experiment.read_text()


def test_with_a_store_workers_mount_no_disk(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = "s3://bucket/runs?endpoint_override=http://minio:9000"
    found = objects(rendered(capsys, "kuberay", experiment, "--store", store, "--claim", "mine"))
    cluster = found["RayJob"]["spec"]["rayClusterSpec"]
    worker = cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
    assert [mount["mountPath"] for mount in worker["volumeMounts"]] == ["/dev/shm"]
    assert worker["envFrom"][0]["secretRef"]["name"] == "small-one-store"
    words = shlex.split(found["RayJob"]["spec"]["entrypoint"])
    assert words[words.index("--store") + 1] == store
    volumes = cluster["headGroupSpec"]["template"]["spec"]["volumes"]
    assert {"claimName": "mine"} in [volume.get("persistentVolumeClaim") for volume in volumes]
    assert "PersistentVolumeClaim" not in found


@pytest.mark.parametrize(
    ("options", "place", "rule"),
    [
        (("--name", "Größe"), "--name", "must be letters, digits"),
        (("--name", "x" * 48), "--name", "must be a DNS label of at most 47 characters"),
        (("--name", "ends-"), "--name", "must be a DNS label"),
        (("--namespace", "My Space"), "--namespace", "must be a DNS label"),
        (("--claim", "a/b"), "--claim", "must be a DNS label"),
        (("--image", ""), "--image", "must name an image"),
        (("--nodes", "0"), "--nodes", "must be >= 1, got 0"),
        (("--storage-gib", "0"), "--storage-gib", "must be >= 1, got 0"),
        (("--set", "resources.gpus_per_worker=2"), "resources", "a trial needs 1 worker(s) of 1 CPUs and 2 GPUs"),
        (("--set", "tasks=[a.yaml]"), "tasks", "there is no dataset recipe"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused_here(
    experiment: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], place: str, rule: str
) -> None:
    problems = json.loads(rendered(capsys, "kuberay", experiment, *options, "--json", code=2))["problems"]
    assert [problem["rule"][: len(rule)] for problem in problems] == [rule]
    assert place in problems[0]["place"]
    assert problems[0]["way_out"]


@pytest.mark.parametrize("target", ["kuberay", "slurm", "docker"])
def test_an_unknown_experiment_is_refused(target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems = json.loads(rendered(capsys, target, tmp_path / "none.yaml", "--json", code=2))["problems"]
    assert "cannot be read" in problems[0]["rule"]


def test_a_recipe_that_only_this_machine_has_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(SMALL["tasks"][0]))
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "tasks": [str(tmp_path / "mine.yaml")]}))
    problems = json.loads(rendered(capsys, "docker", path, "--json", code=2))["problems"]
    assert "the container does not have" in problems[0]["rule"]
    assert "sweep" in rendered(capsys, "slurm", path)


# --- SLURM -----------------------------------------------------------------------------------------------------------


def test_the_batch_script_asks_for_what_it_uses(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--nodes", 3, "--gpus", 2, "--cpus", 16, "--partition", "a100", "--account", "hrm", "--time", "2-00:00")
    script = rendered(capsys, "slurm", experiment, *map(str, options))
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")]
    asked = {name: value for name, _, value in (line.partition("=") for line in lines)}
    assert asked.keys() == SBATCH_OPTIONS
    assert (asked["nodes"], asked["gpus-per-node"], asked["signal"]) == ("3", "2", "B:TERM@120")
    assert script.index("#SBATCH") < script.index("\ncd ")  # sbatch reads no option behind the first command
    assert script.count("--num-cpus=16 --num-gpus=2") == 2
    assert "--nodes=2 --ntasks=2" in script  # the head runs on the first of three
    single = rendered(capsys, "slurm", experiment)
    assert single.count("ray start") == 1


def test_values_that_would_break_a_line_of_sbatch_are_refused(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = json.loads(rendered(capsys, "slurm", experiment, "--time", "1 day", "--json", code=2))["problems"]
    assert problems[0]["place"] == "--time"


@pytest.mark.parametrize(
    ("driver", "restarts", "told", "code", "requeued"),
    [
        ("exit 0", 0, False, 0, False),
        ("exit 1", 0, False, 1, False),
        ("exit 2", 0, False, 2, False),
        ("exit 3", 0, False, 3, True),
        ("exit 3", 5, False, 3, False),  # it fails again and again
        ("exit 130", 0, False, 130, False),  # `orchestrator stop`
        ("trap 'exit 130' TERM; touch ready; while :; do sleep 0.05; done", 9, True, 130, True),  # preempted
        ("trap 'exit 0' TERM; touch ready; while :; do sleep 0.05; done", 0, True, 0, False),  # done just in time
    ],
)
def test_a_preempted_job_saves_and_comes_back(
    tmp_path: Path,
    experiment: Path,
    capsys: pytest.CaptureFixture[str],
    driver: str,
    restarts: int,
    told: bool,
    code: int,
    requeued: bool,
) -> None:
    fakes = {
        "srun": "exec sleep 60",
        "scontrol": 'echo "$@" > requeued',
        "hostname": "echo 127.0.0.1 10.0.0.1",
        "python": f'[[ $1 == -c ]] && echo token && exit; echo "$@" > driver; {driver}',
    }
    (tmp_path / "bin").mkdir()
    for name, body in fakes.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    script = rendered(capsys, "slurm", experiment, "--nodes", "2").replace('(echo > "/dev/tcp/$ip/$port")', "true")
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "7",
        "SLURMD_NODENAME": "node1",
        "SLURM_RESTART_COUNT": str(restarts),
    }
    process = subprocess.Popen(["bash", "-c", script], env=environment, cwd=tmp_path, start_new_session=True)
    try:
        if told:
            while not (tmp_path / "ready").exists():
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == code
    finally:
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
    assert (tmp_path / "requeued").exists() is requeued
    assert (tmp_path / "driver").read_text().split()[-4:] == ["--address", "127.0.0.1:20007", "--nodes", "2"]


# --- Docker ----------------------------------------------------------------------------------------------------------


def test_the_docker_script_runs_with_nvidias_flags(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = rendered(capsys, "docker", experiment, "--gpus", "1", "--base", "nvcr.io/nvidia/pytorch:26.01-py3")
    bashlex.parse("\n".join(line for line in script.splitlines() if not line.startswith("#")) + "\n")
    assert "--gpus all --ipc=host --ulimit memlock=-1 --ulimit stack=67108864" in script
    assert "--build-arg BASE=nvcr.io/nvidia/pytorch:26.01-py3" in script
    plain = rendered(capsys, "docker", experiment)
    assert "--target cpu" in plain
    assert "--gpus" not in plain


def test_the_dockerfile_keeps_the_containers_torch() -> None:
    stages: dict[str, list[dict[str, Any]]] = {}
    arguments = []
    for step in DockerfileParser(fileobj=(ROOT / "Dockerfile").open("rb")).structure:
        if step["instruction"] == "FROM":
            image, name = re.split(r" AS ", step["value"])
            stages[name] = [{**step, "image": image}]
        elif step["instruction"] == "ARG" and not stages:
            arguments.append(step["value"])
        elif step["instruction"] != "COMMENT":
            stages[name].append(step)
    assert arguments == ["BASE=nvcr.io/nvidia/pytorch:25.10-py3"]
    gpu, cpu = (" ".join(step["value"] for step in stages[name][1:]) for name in ("gpu", "cpu"))
    assert (stages["gpu"][0]["image"], stages["cpu"][0]["image"]) == ("${BASE}", "python:3.11-slim")
    assert "PIP_CONSTRAINT=/etc/pip/constraint.txt" in gpu
    assert "constraints.txt" not in gpu  # ours would replace its torch
    assert "diff - /tmp/torch" in gpu
    assert "--constraint constraints.txt" in cpu
    for steps in stages.values():
        last = {step["instruction"]: step["value"] for step in steps}
        assert json.loads(last["ENTRYPOINT"]) == ["python", "-m", "orchestrator"]
        assert last["WORKDIR"] == "/opt/hrm-orchestrator"


def test_what_the_image_needs_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    needed = {"orchestrator", "hrm", "analysis", "experiments", "datasets", "pyproject.toml", "README.md", "LICENSE"}
    assert not needed & set(ignored)
    assert {"runs", ".git"} <= set(ignored)


def test_files_go_where_they_are_asked_for(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "jobs"
    for target, file in (
        ("kuberay", "small-one.rayjob.yaml"),
        ("slurm", "small-one.sbatch"),
        ("docker", "small-one.docker.sh"),
    ):
        printed = rendered(capsys, target, experiment)
        assert rendered(capsys, target, experiment, "--output", out).strip() == str(out / file)
        assert (out / file).read_text() == printed
