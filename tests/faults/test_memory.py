"""A training that gets no more memory from the system fails as out of memory. Real: the limit is the kernel's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from conftest import MakeTrial

STARVED = """\
import json, resource, sys
from pathlib import Path
import psutil
from orchestrator.ledger import Job
from orchestrator.trial_driver import Place, ProcessContext, outcome, run_job

folder, data, spec = sys.argv[1:]
job = Job("x", json.loads(spec), 1, 0, False)
place = Place(folder, data, folder + "/STOP", 1, "never")
reports = run_job(job, ProcessContext(place, job))
limit = psutil.Process().memory_info().vms + 300 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
print(json.dumps(outcome(reports)))
"""


def test_a_training_without_memory_fails_with_its_reason(
    tmp_path: Path, data_root: Path, make_trial: MakeTrial
) -> None:
    wide = {"kind": "transformer", "hidden_size": 4096, "num_heads": 2, "num_layers": 2, "causal": True}
    spec = make_trial(model=wide).model_dump_json()
    done = subprocess.run(
        [sys.executable, "-c", STARVED, tmp_path, data_root, spec], capture_output=True, text=True, timeout=100
    )
    event = json.loads(done.stdout.splitlines()[-1])
    failure = json.loads(event["failure"])
    assert failure["origin"] == "trial", failure
    assert failure["reason"].startswith("out_of_memory: ")
