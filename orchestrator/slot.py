"""A warm Ray Train slot: one long-lived TorchTrainer whose workers take trial after trial from a mailbox.

A TorchTrainer per trial costs 15 to 26 seconds on two cores; here a trial starts in a tenth of a second, on real Ray
Train workers with their process group. The Tune actor (`SlotTrial`) puts a job into the mailbox and takes its events;
a worker that posts a report waits until the driver has logged it and decided.
"""

from __future__ import annotations

import asyncio
import json
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
from ray.train.torch import TorchTrainer, get_device
from torch import Tensor

from orchestrator.failures import Failure
from orchestrator.ledger import Job
from orchestrator.resources import ResourceSpec
from orchestrator.trial_driver import Place, ProcessContext, outcome, run_job

START_SECONDS = 300.0
"""How long a slot may take until its workers take the first job; then the attempt is given back as failed."""
POLL_SECONDS = 5.0
"""How often a waiting trial looks whether its slot is still alive."""
_LOST = Failure("infrastructure", "worker_lost: a training worker died")


class Mailbox:
    """Between one Tune actor and the workers of its slot (an async Ray actor). One job at a time, by a growing number.

    An event is answered when the Tune actor asks for the next one: True to go on, False to leave the job.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._job: tuple[int, str] | None = None
        self._number = 0
        self._handed_out = False
        self._event: dict[str, Any] | None = None
        self._answer: bool | None = None
        self._closed = self._ever_taken = False

    async def put(self, job: str) -> None:
        """A new job; one that is under way is left."""
        async with self._changed:
            self._number += 1
            self._job, self._handed_out = (self._number, job), False
            self._event, self._answer = None, None
            self._changed.notify_all()

    async def is_taken(self) -> bool:
        """True if the workers have ever taken a job."""
        return self._ever_taken

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
            self._ever_taken = True
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
        wanted = super().should_stop() if self.rank == 0 else False
        return bool(self.agree(wanted))

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
        if context.device.type == "cuda":
            torch.cuda.empty_cache()


def _leave_if_alone(event: dict[str, Any], context: SlotContext, mailbox: Any, number: int) -> None:
    """A failure that may have struck this worker alone leaves the others in a collective: restart the whole group."""
    if "failure" in event and context.world_size > 1:
        failure = Failure(**json.loads(event["failure"]))
        if failure.origin != "trial" or failure.reason.startswith("out_of_memory"):
            ray.get(mailbox.post.remote(number, event))
            raise RuntimeError(failure.reason)


class SlotTrial(tune.Trainable):
    """The Tune actor of a slot: starts it once, then runs one trial after another in it."""

    def setup(self, config: dict[str, Any]) -> None:
        mailbox: Any = ray.remote(Mailbox)
        self._mailbox = mailbox.options(num_cpus=0, max_concurrency=64).remote()
        self._error: BaseException | None = None
        self._deadline = time.monotonic() + START_SECONDS
        trainer = _trainer(self._mailbox, config["place"], ResourceSpec(**config["resources"]))
        self._thread = threading.Thread(target=self._fit, args=(trainer,), daemon=True)
        self._thread.start()
        self.reset_config(config)

    def _fit(self, trainer: TorchTrainer) -> None:
        try:
            trainer.fit()
        except BaseException as error:
            self._error = error

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        ray.get(self._mailbox.put.remote(new_config["job"]))
        return True

    def step(self) -> dict[str, Any]:
        while True:
            event: dict[str, Any] | None = ray.get(self._mailbox.next_event.remote(POLL_SECONDS))
            if event is not None:
                return event
            if not self._thread.is_alive():
                raise RuntimeError(f"the slot's trainer ended: {self._error}")
            if time.monotonic() > self._deadline and not ray.get(self._mailbox.is_taken.remote()):
                raise RuntimeError(f"no training worker came up in {START_SECONDS:.0f} s")

    def cleanup(self) -> None:
        ray.get(self._mailbox.close.remote())
        self._thread.join(timeout=30)


def _trainer(mailbox: Any, place: dict[str, Any], resources: ResourceSpec) -> TorchTrainer:
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
            name=f"slot-{uuid.uuid4().hex[:8]}",
            storage_path=str(Path(place["sweep_directory"]) / "slots"),
            failure_config=ray_train.FailureConfig(max_failures=-1),
            logging_config=ray_train.LoggingConfig(log_level="ERROR"),
        ),
    )
