"""What the driver looks at while Tune runs: do the workers still train, and how many trials does the cluster take now?

A worker without a step for too long is ended on its node, so that Ray and the ledger see a death that they know how to
mend. Nodes come and go; where none has room, the view says what is waited for.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import ray
from ray._raylet import PlacementGroupID
from ray.exceptions import RayActorError, RayError
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hrm.errors import SpecError
from orchestrator.ledger import Ledger
from orchestrator.pulse import EVERY_SECONDS, NAME, Pulse, Silence
from orchestrator.resources import Resources

STILL_SECONDS = 300.0
"""A process that has not been heard for so long is frozen or cut off: its heart beats beside the training."""
MARGIN_SECONDS = 3 * EVERY_SECONDS
"""What a worker's own watchdog gets before the driver ends it."""
PLACE_SECONDS = 60.0
"""After so long without a place for a trial the person who watches is told."""
logger = logging.getLogger(__name__)


class Watch:
    """Asks the pulse and the cluster every few seconds, whenever Tune's loop comes by."""

    def __init__(self, ledger: Ledger, resources: Resources, concurrency: int, waiting: Callable[[str], None]) -> None:
        self._ledger, self._resources, self._waiting = ledger, resources, waiting
        self.concurrency = concurrency
        self._silences: dict[str, list[Silence]] = {}
        self._missed: dict[str, float] = {}
        """Since when a trial has not been heard at all."""
        self._next = 0.0
        self._said = ""
        self._pulse = _new_pulse()
        self._asked: Any = None

    def look(self) -> None:
        """Look, if it is time to. Raises ConnectionError when this driver's own node has left the cluster."""
        if not self._ledger.live:
            time.sleep(0.1)  # Tune itself does not wait where no actor is at work
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY_SECONDS
        self._look_at_nodes()
        self._listen()
        for silences in self._silences.values():
            if any(self._is_over(silence) for silence in silences):
                for silence in silences:
                    _end(silence)

    def hang(self, key: str) -> str:
        """Why a lost trial is taken for hung, in a sentence; empty if it was not."""
        self._asked = self._ask()
        self._hear(seconds=2 * EVERY_SECONDS)
        limit = self._limit()
        longest = max((silence.seconds for silence in self._silences.get(key, [])), default=0.0)
        if longest < 0.9 * limit:
            return ""
        return f"hung: no step for {longest:.0f} s; the stacks are in its log.txt, unless it was frozen"

    def free(self, key: str) -> None:
        """Remove the placement group of a slot whose Tune actor is gone: Ray Train's own clean-up asks the dashboard,
        and where there is none the group would hold its resources for ever."""
        beats = [silence.beat for silence in self._silences.get(key, [])]
        if any(beat.rank < 0 for beat in beats):
            for group in {beat.group for beat in beats if beat.rank >= 0 and beat.group}:
                remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))

    def _limit(self) -> float:
        return self._resources.hang_seconds or float("inf")

    def _is_over(self, silence: Silence) -> bool:
        frozen = silence.still > min(STILL_SECONDS, self._limit())
        return frozen or silence.seconds > self._limit() + MARGIN_SECONDS

    def _listen(self) -> None:
        """Take the pulse's answer if it has come, and ask again."""
        if self._asked is None or ray.wait([self._asked], timeout=0.0)[0]:
            self._hear(seconds=1.0)
            self._asked = self._ask()

    def _hear(self, seconds: float) -> None:
        try:
            self._silences = ray.get(self._asked, timeout=seconds) if self._asked else {}
        except RayActorError as error:
            logger.warning("the pulse died: %s", error)
            self._pulse = _new_pulse()
        except RayError as error:
            logger.warning("the pulse does not answer: %s", error)

    def _ask(self) -> Any:
        stopping = self._ledger.stopping or self._ledger.store.stop_file.exists()
        return self._pulse.look.remote(_leaving_nodes(), stopping, list(self._ledger.live))

    def _look_at_nodes(self) -> None:
        alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        if ray.get_runtime_context().get_node_id() not in [node["NodeID"] for node in alive]:
            raise ConnectionError("this driver's node has left the Ray cluster")
        leaving = _leaving_nodes()
        staying = [node["Resources"] for node in alive if node["NodeID"] not in leaving]
        nodes = [(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in staying]
        try:
            self.concurrency, message = self._resources.concurrency(nodes), ""
        except SpecError as error:
            self.concurrency, message = 0, f"Waiting for room in the cluster: {error.problems[0].rule}"
        message = message or self._without_a_place()
        if message != self._said:
            self._waiting(message)
        self._said = message

    def _without_a_place(self) -> str:
        """What to say of trials that were started long ago and have never been heard."""
        unheard = self._ledger.live - self._silences.keys()
        self._missed = {key: self._missed.get(key, self._next) for key in unheard}
        late = [key for key, since in self._missed.items() if self._next - since > PLACE_SECONDS]
        return f"Waiting for room in the cluster: {len(late)} trial(s) have no place yet" if late else ""


def _new_pulse() -> Any:
    """On the driver's node. Ray may not restart it: where memory is short it ends restartable actors first."""
    pulse: Any = ray.remote(Pulse)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return pulse.options(name=NAME, num_cpus=0, scheduling_strategy=here).remote()


def _leaving_nodes() -> list[str]:
    """The nodes that the cluster is about to take away (Ray's drain of a preempted or scaled-down node)."""
    return list(ray._private.state.state.get_draining_nodes())


def _end(silence: Silence) -> None:
    """End a worker's process by a task on its node: what is frozen does not hear Ray."""
    logger.warning("%s: a worker gave no sign of a step for %.0f s and is ended", silence.beat.key, silence.seconds)
    there = NodeAffinitySchedulingStrategy(silence.beat.node, soft=False)
    kill: Any = ray.remote(lambda pid: os.kill(pid, signal.SIGKILL))
    kill.options(num_cpus=0, scheduling_strategy=there, max_retries=0).remote(silence.beat.pid)
