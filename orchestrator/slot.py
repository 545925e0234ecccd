"""A warm Ray Train slot: one long-lived TorchTrainer whose workers take trial after trial from a mailbox.

A TorchTrainer per trial costs 15 to 26 seconds on two cores; here a trial starts in a tenth of a second, on real Ray
Train workers with their process group. The Tune actor (`SlotTrial`) puts a job into the mailbox and takes its events;
a worker that posts a report waits until the driver has logged it and decided.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray import train as ray_train
from ray import tune
from ray.train.torch import TorchTrainer, get_device, get_devices
from torch import Tensor

from orchestrator.failures import WORKER_LOST, Failure, PreemptedError
from orchestrator.heart import HEART
from orchestrator.jobs import Job
from orchestrator.node import GpuEnergy, gpu_names
from orchestrator.resources import Resources
from orchestrator.trial_driver import Place, ProcessContext, outcome, run_job

START_SECONDS = 300.0
"""How long a slot's workers may take until they take a job; then it is given back, and the slot is built anew."""
POLL_SECONDS = 5.0
"""How often a waiting trial looks whether its slot is still alive."""
_LOST = Failure("infrastructure", f"{WORKER_LOST}: a training worker died")


class Mailbox:
    """Between one Tune actor and the workers of its slot (an async Ray actor). One job at a time, by a growing number.

    An event is answered when the Tune actor asks for the next one: True to go on, False to leave the job.
    """

    def __init__(self, slot: str = "") -> None:
        self._slot = slot
        self._changed = asyncio.Condition()
        self._job: tuple[int, str] | None = None
        self._number = 0
        self._handed_out = False
        self._event: dict[str, Any] | None = None
        self._answer: bool | None = None
        self._closed = False

    def __repr__(self) -> str:
        """What the Ray dashboard calls it."""
        return f"{self._slot}: mailbox"

    async def put(self, job: str) -> None:
        """A new job; one that is under way is left."""
        async with self._changed:
            self._number += 1
            self._job, self._handed_out = (self._number, job), False
            self._event, self._answer = None, None
            self._changed.notify_all()

    async def is_taken(self) -> bool:
        """True if the workers have the job, or have had it."""
        return self._handed_out or self._job is None

    async def next_event(self, seconds: float) -> dict[str, Any] | None:
        """Let the worker go on, and wait for its next event; None when `seconds` have passed."""
        async with self._changed:
            if self._answer is None and self._event is None and self._handed_out:
                self._answer = True
                self._changed.notify_all()
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: self._event is not None), seconds)
            except TimeoutError:
                return None
            event, self._event = self._event, None
            return event

    async def take(self, last: int, rank: int) -> tuple[int, str] | None:
        """A worker waits for a job newer than `last`; None when the slot closes.

        A first worker that has seen nothing while a job is under way belongs to a restarted group: the job's workers
        are dead, and its trial is told so.
        """
        async with self._changed:
            if rank == 0 and last == 0 and self._handed_out and self._job is not None:
                self._event, self._job = {"failure": json.dumps(asdict(_LOST)), "done": True}, None
                self._changed.notify_all()
            await self._changed.wait_for(lambda: self._closed or (self._job is not None and self._job[0] > last))
            if self._closed or self._job is None:
                return None
            self._handed_out = self._handed_out or rank == 0
            return self._job

    async def post(self, number: int, event: dict[str, Any]) -> bool:
        """A worker's event. Waits for the answer, unless it ends the job."""
        async with self._changed:
            if self._job is None or self._job[0] != number:
                return False
            self._event, self._answer = event, None
            self._changed.notify_all()
            if event.get("done"):
                self._job, self._handed_out = None, False
                return False
            await self._changed.wait_for(
                lambda: self._closed or self._job is None or self._job[0] != number or self._answer is not None
            )
            return bool(self._answer) and self._job is not None and self._job[0] == number

    async def close(self) -> None:
        """Send the workers home."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()


class SlotContext(ProcessContext):
    """A Ray Train worker's view: its rank and device, and collectives over torch.distributed."""

    def __init__(self, place: Place, job: Job) -> None:
        super().__init__(place, job)
        worker = ray_train.get_context()
        self.rank, self.world_size = worker.get_world_rank(), worker.get_world_size()
        self.device = get_device()
        self._energy = GpuEnergy(gpu_names(get_devices()), place.gpu_share)

    def system_metrics(self) -> dict[str, float]:
        """This worker's node, and the energy that the GPUs of all workers took since it was last asked."""
        metrics, joules = super().system_metrics(), self._energy.joules()
        if self.device.type != "cuda":
            return metrics
        total = float(self.all_reduce(torch.tensor([math.nan if joules is None else joules], device=self.device)))
        return metrics if math.isnan(total) else metrics | {"energy_joules": total}

    def all_reduce(self, tensor: Tensor) -> Tensor:
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Of any dtype and of lengths that may differ by worker: the bytes travel, padded to the longest."""
        if self.world_size == 1:
            return tensor
        length = torch.tensor([len(tensor)], device=self.device)
        lengths = [torch.zeros_like(length) for _ in range(self.world_size)]
        dist.all_gather(lengths, length)
        longest = int(max(lengths))
        row = tensor.contiguous().view(len(tensor), -1).view(torch.uint8)
        padded = torch.nn.functional.pad(row, (0, 0, 0, longest - len(tensor)))
        parts = [torch.empty_like(padded) for _ in range(self.world_size)]
        dist.all_gather(parts, padded)
        whole = torch.cat([part[: int(n)] for part, n in zip(parts, lengths, strict=True)])
        return whole.view(tensor.dtype).view(-1, *tensor.shape[1:])

    def should_stop(self) -> bool:
        return self.any(super().should_stop())

    def any(self, wanted: bool) -> bool:
        """True, on every worker, if one of them wants it."""
        if self.world_size == 1:
            return wanted
        return bool(self.all_reduce(torch.tensor([float(wanted)], device=self.device)).item())

    def agree(self, wanted: bool) -> bool:
        """The first worker's answer, on every worker."""
        if self.world_size == 1:
            return wanted
        flag = torch.tensor([float(wanted)], device=self.device)
        dist.broadcast(flag, 0)
        return bool(flag.item())


def work(config: dict[str, Any]) -> None:
    """What every worker of a slot does until the slot closes: take a job, train, post events."""
    mailbox, place, last = config["mailbox"], Place(**config["place"]), 0
    rank = ray_train.get_context().get_world_rank()
    ray.get(ray.get_runtime_context().current_actor.__ray_call__.remote(_listen))
    while True:
        taken = ray.get(mailbox.take.remote(last, rank))
        if taken is None:
            return
        last, job = taken[0], Job(**json.loads(taken[1]))
        context = SlotContext(place, job)
        context.agree(True)  # every worker has taken the job before any of them can end it
        reports = run_job(job, context)
        go_on = True
        while go_on:
            event = outcome(reports)
            _leave_if_alone(event, context, mailbox, last)
            answer = ray.get(mailbox.post.remote(last, event)) if rank == 0 else False
            go_on = context.agree(answer)
        reports.close()
        HEART.drop()
        if context.any(HEART.told == "leave"):
            raise PreemptedError("a worker was told to leave, and the trial has saved")  # and a new group begins
        if context.device.type == "cuda":
            torch.cuda.empty_cache()


def _listen(worker: Any) -> None:
    """In the worker's main thread, where alone signals can be handled."""
    HEART.leave_on_sigterm()


def _leave_if_alone(event: dict[str, Any], context: SlotContext, mailbox: Any, number: int) -> None:
    """A failure that may have struck this worker alone leaves the others in a collective: restart the whole group."""
    if "failure" in event and context.world_size > 1:
        failure = Failure(**json.loads(event["failure"]))
        if failure.origin != "trial" or failure.reason.startswith("out_of_memory"):
            ray.get(mailbox.post.remote(number, event))
            raise RuntimeError(failure.reason)


class SlotTrial(tune.Trainable):
    """The Tune actor of a slot: starts it once, then runs one trial after another in it."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """No CPU: its Ray Train workers take them, and on a small machine would wait for its own for ever."""
        return tune.PlacementGroupFactory([{"memory": 1e6}])

    def setup(self, config: dict[str, Any]) -> None:
        HEART.leave_on_sigterm()
        self._name = f"{Path(config['place']['sweep_directory']).name}-slot-{uuid.uuid4().hex[:4]}"
        mailbox: Any = ray.remote(Mailbox)
        self._mailbox = mailbox.options(num_cpus=0, max_concurrency=64).remote(self._name)
        self._error: BaseException | None = None
        trainer = _trainer(self._name, self._mailbox, config["place"], Resources(**config["resources"]))
        self._thread = threading.Thread(target=self._fit, args=(trainer,), daemon=True)
        self._thread.start()
        self.reset_config(config)

    def _fit(self, trainer: TorchTrainer) -> None:
        try:
            trainer.fit()
        except BaseException as error:
            self._error = error

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        job, place = Job(**json.loads(new_config["job"])), Place(**new_config["place"])
        HEART.take(job.key, job.attempt, -1, place.hang_seconds, place.trial_directory(job.key) / "log.txt")
        self._deadline = time.monotonic() + START_SECONDS
        ray.get(self._mailbox.put.remote(new_config["job"]))
        return True

    def step(self) -> dict[str, Any]:
        with HEART.at_work():
            event = self._next_event()
        if event.get("done"):
            HEART.drop()
        if "stopped" in event and HEART.told == "leave":
            raise PreemptedError("the process was told to leave, and the trial has saved")
        return event

    def _next_event(self) -> dict[str, Any]:
        while True:
            event: dict[str, Any] | None = ray.get(self._mailbox.next_event.remote(POLL_SECONDS))
            if event is not None:
                return event
            HEART.beat()
            if not self._thread.is_alive():
                raise RuntimeError(f"the slot's trainer ended: {self._error}")
            if time.monotonic() > self._deadline and not ray.get(self._mailbox.is_taken.remote()):
                raise PreemptedError(f"the cluster gave no place to its workers in {START_SECONDS:.0f} s")

    def __repr__(self) -> str:
        """What the Ray dashboard calls it, and its run in the Train tab."""
        return self._name

    def cleanup(self) -> None:
        ray.get(self._mailbox.close.remote())
        self._thread.join(timeout=30)


def _trainer(name: str, mailbox: Any, place: dict[str, Any], resources: Resources) -> TorchTrainer:
    """The slot's trainer. Its workers are restarted as often as they die; what becomes of the trial is the ledger's."""
    gpus = {"GPU": resources.gpus_per_worker} if resources.gpus_per_worker else {}
    return TorchTrainer(
        work,
        train_loop_config={"mailbox": mailbox, "place": place},
        scaling_config=ray_train.ScalingConfig(
            num_workers=resources.workers_per_trial,
            use_gpu=bool(gpus),
            resources_per_worker={"CPU": float(resources.cpus_per_worker), **gpus},
        ),
        run_config=ray_train.RunConfig(  # type: ignore[call-arg]  # typed as in Train V1
            name=name,
            storage_path=Place(**place).slots,
            failure_config=ray_train.FailureConfig(max_failures=-1),
            logging_config=ray_train.LoggingConfig(log_level="ERROR"),
        ),
    )
