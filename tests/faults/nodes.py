"""A cluster of several nodes on this machine, in a process of its own, for the tests: `python nodes.py`.

Real: each node has its own raylet, object store and workers, and dies by SIGKILL. Fake: they share one machine and its
disk. Commands on standard input: `drain` (the newest node), `kill` (it), `add`, and `groups` (how many placement groups
are not removed); each answers with a line.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

AUTHENTICATION = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a-token-of-this-test-alone-0123456789"}


class Nodes:
    """The other end of the process: a head without CPUs, and nodes of one CPU."""

    def __init__(self, count: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **AUTHENTICATION, "RAY_DISABLE_IMPORT_WARNING": "1"},
            cwd=Path(__file__).parent,
        )
        self.address = self._answer()

    def ask(self, command: str) -> str:
        """Send a command; gives the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        while not (line := self._process.stdout.readline()).startswith("> "):
            assert line, "the cluster's process ended"
        return line[2:].strip()

    def processes(self) -> list[psutil.Process]:
        """All of the cluster's."""
        return psutil.Process(self._process.pid).children(recursive=True)

    def close(self) -> None:
        """End it all."""
        for process in self.processes():
            process.kill()
        self._process.kill()
        self._process.wait()


def kill(node: Any) -> None:
    """Every process of a node at once."""
    raylet = next(
        info.process for infos in node.all_processes.values() for info in infos if "raylet" in info.process.args[0]
    )
    family = [psutil.Process(raylet.pid), *psutil.Process(raylet.pid).children(recursive=True)]
    for process in family:
        process.kill()


def drain(address: str, node: str) -> None:
    """Tell Ray that a node will be taken away, as an autoscaler does that heard of a preemption."""
    ray = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", address, "--node-id", node]
    why = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a test"]
    subprocess.run([*ray, *why, "--deadline-remaining-seconds", "600"], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    import ray
    from ray.cluster_utils import Cluster

    memory: dict[str, Any] = {"object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **memory})
    nodes = [cluster.add_node(num_cpus=1, **memory) for _ in range(int(sys.argv[1]))]
    print(f"> {cluster.address}", flush=True)
    for line in sys.stdin:
        answer = "done"
        if line.strip() == "kill":
            kill(nodes.pop())
        elif line.strip() == "drain":
            drain(cluster.address, nodes[-1].node_id)
        elif line.strip() == "add":
            nodes.append(cluster.add_node(num_cpus=1, wait=False, **memory))
        elif line.strip() == "groups":
            ray.init(address=cluster.address, log_to_driver=False)
            table = ray.util.placement_group_table()
            answer = str(sum(group["state"] != "REMOVED" for group in table.values()))
            ray.shutdown()
        print(f"> {answer}", flush=True)


if __name__ == "__main__":
    main()
