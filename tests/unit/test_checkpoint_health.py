"""The report of weights alone: known answers for a model of a known shape, damage, changes, and what is not claimed."""

from __future__ import annotations

import csv
import json
import math
import shlex
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from pyarrow import parquet
from torch import Tensor

from analysis.checkpoints.health import CheckpointHealth, Health, examine
from analysis.checkpoints.report import CheckpointReport, write_checkpoint_report
from analysis.checkpoints.rows import count_duplicates
from analysis.checkpoints.tensors import Group, measure
from analysis.checkpoints.tensors import group as together
from analysis.checkpoints.weights import is_buffer, open_weights
from hrm.checkpoint import Checkpoint, write_checkpoint
from hrm.models import ModelSpec
from hrm.models.hrm import HRMSpec
from hrm.nn.halting import HaltingSpec
from hrm.remote import Archive
from hrm.tasks import TaskShape
from hrm.variants import discover
from orchestrator import cli
from orchestrator.checkpoint_places import checkpoints_at

MODELS = cast("dict[str, type[ModelSpec]]", discover("hrm.models", ModelSpec))
ROWS = 95_996
TRAINED = {180: ROWS - 95_804, 7566: ROWS - 90_716}
"""Rows of the puzzle table that were trained by a step: 99.8 and 94.5 % were not."""


def v9(step: int) -> dict[str, Tensor]:
    """The original's state dict of the model of experiments/v9_sweep.yaml at a step, in half precision."""
    torch.manual_seed(0)
    spec = HRMSpec(hidden_size=256, num_heads=4, H_layers=2, L_layers=2, puzzle_embedding_size=256)
    model = spec.model_copy(update={"halting": HaltingSpec(rule="q_with_target", segments=16)}).build(
        TaskShape(vocab_size=12, sequence_length=900, num_puzzle_identifiers=ROWS)
    )
    state = model.state_dict()
    state["puzzle_emb.weights"][1 : 1 + TRAINED[step]] = 0.02 * torch.randn(TRAINED[step], 256)
    state["q_head.weight"].normal_(std=0.01)
    state["q_head.bias"] += 0.134 * (step == 7566)
    return {f"_orig_mod.model.inner.{name}": value.half() for name, value in state.items()}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two checkpoints of one training of that model, the later one first."""
    folder = tmp_path_factory.mktemp("v9")
    paths = [folder / f"step_{step}" for step in (7566, 180)]
    for path in paths:
        torch.save(v9(int(path.name[5:])), path)
    return paths


@pytest.fixture(scope="module")
def health(files: list[Path]) -> Health:
    return examine([open_weights(path) for path in files])


def saved(folder: Path, step: int = 1, **changed: Tensor) -> Path:
    """A small model of the original code, some tensors changed."""
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"hidden_size": 32, "num_heads": 2, "puzzle_embedding_size": 32}
    model = HRMSpec(**sizes, H_layers=1, L_layers=1).build(TaskShape(11, 12, 5))
    state = model.state_dict()
    state["puzzle_emb.weights"].normal_()
    for name, tensor in changed.items():
        state[name.replace("__", ".")] = tensor
    torch.save(state, folder / f"step_{step}")
    return folder / f"step_{step}"


def group(checkpoint: CheckpointHealth, name: str) -> Group:
    found = checkpoint.group(name)
    assert found is not None
    return found


def told(health: Health, subject: str) -> list[str]:
    return [finding.text for finding in health.findings if finding.subject == subject]


# --- the model of the v9 sweep ---------------------------------------------------------------------------------------


def test_values_and_shares_of_every_component_are_counted_and_buffers_stand_apart(health: Health) -> None:
    last = health.checkpoints[-1]
    assert last.parameters == 27_990_018
    counted = {part.name: part.parameters for part in last.groups}
    assert counted == {
        "everything": 27_990_018,
        "parameters": 3_414_530,
        "buffers": 24_575_488,
        "puzzle table": 24_574_976,
        "H": 1_703_936,
        "L": 1_703_936,
        "token embedding": 3_072,
        "head": 3_072,
        "Q head": 514,
        "initial states": 512,
    }
    assert group(last, "puzzle table").share == pytest.approx(0.8780, abs=1e-4)
    assert group(last, "everything").tensors == 23
    assert group(last, "buffers").tensors == 3


def test_the_averages_by_tensor_are_those_that_were_reported_and_by_value_are_fifty_times_smaller(
    health: Health,
) -> None:
    first = group(health.checkpoints[0], "everything")
    assert first.per_tensor.mean_absolute == pytest.approx(0.325, abs=0.003)
    assert first.per_tensor.std == pytest.approx(0.131, abs=0.003)
    assert first.per_parameter.mean_absolute == pytest.approx(0.006, abs=0.0005)
    assert 100 * first.per_tensor.sparsity == pytest.approx(100 * 95_804 / ROWS / 23, abs=0.005)
    assert 100 * first.per_tensor.sparsity == pytest.approx(4.34, abs=0.005)
    assert 100 * group(health.checkpoints[1], "everything").per_tensor.sparsity == pytest.approx(4.11, abs=0.005)
    [weighting] = told(health, "weighting")
    assert "q_head.bias" in weighting
    assert "% of the former" in weighting


def test_a_zero_tensor_among_23_makes_4_35_percent() -> None:
    tensors = [measure(f"t{number}", torch.zeros(9) if number == 0 else torch.ones(3)) for number in range(23)]
    found = together("everything", tensors, 75)
    assert f"{100 * found.per_tensor.sparsity:.2f}" == "4.35"
    assert found.per_parameter.sparsity == 9 / 75


def test_rows_never_trained_are_counted_at_each_step_and_explain_the_zeros(health: Health) -> None:
    assert [table.zero_rows for c in health.checkpoints for table in c.tables if table.rows == ROWS] == [95_804, 90_716]
    of_last, over_steps = told(health, "rows never trained")
    assert "90,716 of 95,996 (94.5 %)" in of_last
    assert "4.11 of the 4.11 % of zeros" in of_last
    assert "fell from 95,804 to 90,716 of 95,996 (99.8 % to 94.5 %)" in over_steps


def test_half_precision_is_recognised_by_type_and_size(health: Health, files: list[Path]) -> None:
    assert health.checkpoints[0].dtypes == {"float16": 23}
    assert 55.9e6 < files[0].stat().st_size < 60.5e6
    [text] = told(health, "float type")
    assert "23 tensors of float16" in text
    assert "2.00 bytes for each of 27,990,018 values" in text
    assert "106.77 MiB" in text


def test_extremes_have_their_tensors_names(health: Health) -> None:
    everything = group(health.checkpoints[0], "everything")
    assert everything.minimum is not None
    assert everything.maximum is not None
    assert (everything.minimum.value, everything.minimum.tensor) == (-5.0, "q_head.bias")
    assert everything.maximum.tensor in ("H_init", "L_init")
    assert everything.maximum.value < 2.28  # two standard deviations of the truncated normal


def test_changes_from_first_to_last_are_differences_and_percent_in_the_order_of_steps(health: Health) -> None:
    [course] = health.courses
    assert course.steps == [180, 7566]
    changes = {(c.group, c.number, c.weighting): c for c in course.changes}
    low = changes["everything", "minimum", ""]
    assert (low.first, low.last) == (-5.0, pytest.approx(-4.866, abs=0.002))
    assert low.percent == pytest.approx(100 * (low.last + 5.0) / 5.0)
    assert changes["everything", "sparsity", "tensor"].percent == pytest.approx(100 * (90_716 / 95_804 - 1), abs=0.01)
    high = changes["everything", "maximum", ""]
    assert high.absolute == 0.0
    drift = {tensor.name: tensor for tensor in course.tensors}
    assert drift["H_init"].changed == 0.0
    new = TRAINED[7566] - TRAINED[180]  # the others were drawn alike
    assert drift["puzzle_emb.weights"].rows_moved == new
    assert drift["puzzle_emb.weights"].distance[1] == pytest.approx(0.02 * math.sqrt(256 * new), rel=0.01)


def test_no_finding_judges_the_training(health: Health) -> None:
    everything = " ".join(finding.text for finding in health.findings)
    assert "converge" not in everything
    assert "deploy" not in everything


# --- damage and dead parts -------------------------------------------------------------------------------------------


def test_values_that_are_not_finite_are_a_problem_with_their_tensor_and_leave_the_other_numbers_alone(
    tmp_path: Path,
) -> None:
    broken = torch.ones(11, 32)
    broken[0, :3] = torch.tensor([math.nan, math.inf, -math.inf])
    health = examine([open_weights(saved(tmp_path, lm_head__weight=broken))])
    tensor = next(tensor for tensor in health.checkpoints[0].tensors if tensor.name == "lm_head.weight")
    assert (tensor.nan, tensor.infinite) == (1, 2)
    assert (tensor.mean_absolute, tensor.std, tensor.minimum, tensor.maximum) == (1.0, 0.0, 1.0, 1.0)
    [finding] = [finding for finding in health.findings if finding.level == "problem"]
    assert finding.text.startswith("lm_head.weight holds 1 NaN and 2 infinite values among its 352")
    report = CheckpointReport("x", health)
    assert report.lead().startswith("Broken: 1 finding")
    assert json.loads(report.to_json())["health"]["checkpoints"][0]["groups"][0]["nan"] == 1


def test_dead_and_repeated_rows_are_counted_bit_by_bit(tmp_path: Path) -> None:
    rows = torch.randn(11, 32)
    rows[2] = rows[5] = 0.0
    rows[7] = rows[9] = rows[1]
    rows[10] = torch.nextafter(rows[1], torch.tensor(9.0))  # nearly, and not
    assert count_duplicates(rows) == (2, 2)
    health = examine([open_weights(saved(tmp_path, embed_tokens__embedding_weight=rows))])
    assert told(health, "dead rows") == ["Dead rows: 2 of 11 of embed_tokens.embedding_weight are all zeros."]
    assert told(health, "repeated rows")[0].startswith("2 of 11 rows of embed_tokens.embedding_weight repeat")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_numbers_of_any_float_type_are_those_of_numpy(dtype: torch.dtype) -> None:
    tensor = torch.randn(700, 400).mul(3).to(dtype)
    tensor[3] = 0.0
    values = tensor.double().numpy()
    found = measure("lm_head.weight", tensor)
    assert found.dtype == str(dtype).removeprefix("torch.")
    assert found.mean == pytest.approx(values.mean(), rel=1e-9)
    assert found.mean_absolute == pytest.approx(np.abs(values).mean(), rel=1e-12)
    assert found.std == pytest.approx(values.std(ddof=1), rel=1e-12)
    assert found.norm == pytest.approx(np.linalg.norm(values), rel=1e-12)
    assert (found.minimum, found.maximum, found.zeros) == (values.min(), values.max(), int((values == 0).sum()))
    assert (found.rows, found.zero_rows) == (700, 1)


def test_the_number_of_pieces_does_not_matter_for_a_group() -> None:
    values = torch.randn(100_000) + 0.3
    whole = together("all", [measure("a", values)], 100_000).per_parameter
    parts = together("all", [measure("a", values[:7]), measure("b", values[7:])], 100_000).per_parameter
    assert parts.std == pytest.approx(whole.std, rel=1e-12)
    assert parts.mean_absolute == pytest.approx(whole.mean_absolute, rel=1e-12)
    assert whole.std == pytest.approx(float(values.double().std()), rel=1e-9)


# --- ours ------------------------------------------------------------------------------------------------------------


def ours(path: Path, step: int = 8, trial: str = "abc", spare: float = 0.0) -> Path:
    """A whole checkpoint of ours: an average that is half of the weights, and moments that never saw token 4."""
    torch.manual_seed(2)
    model = HRMSpec(hidden_size=32, num_heads=2, H_layers=1, L_layers=1).build(TaskShape(11, 12, 0))
    weights = model.state_dict()
    squares = torch.ones(11, 32)
    squares[4] = spare
    training = {"optimizer.embed_tokens.embedding_weight.exp_avg_sq": squares}
    average = {name: value / 2 for name, value in model.named_parameters()}
    manifest = {
        "trial_id": trial,
        "progress": {"step": step},
        "spec": {"model": {"kind": "hrm", "halting": {"rule": "none"}}},
    }
    average = {name: value.detach().contiguous() for name, value in average.items()}
    write_checkpoint(path, Checkpoint(weights, training, {}, manifest, average))
    return path


def test_of_our_checkpoints_the_averaged_weights_count_and_how_far_they_are_from_the_raw_ones_is_said(
    tmp_path: Path,
) -> None:
    [checkpoint] = examine([open_weights(ours(tmp_path / "c"))]).checkpoints
    assert checkpoint.averaged
    bias = next(tensor for tensor in checkpoint.tensors if tensor.name == "q_head.bias")
    assert bias.minimum == -2.5
    assert checkpoint.distance_to_raw == pytest.approx(0.5, abs=0.02)  # initial states are not averaged


def test_tokens_that_training_never_met_are_counted_by_the_optimizers_state(tmp_path: Path) -> None:
    [text] = told(examine([open_weights(ours(tmp_path / "a"))]), "embedding use")
    assert text.startswith("1 of 11 rows of embed_tokens.embedding_weight (9.1 %) have left no trace")
    assert text.endswith("Rows, counted from 0: 4.")
    [text] = told(examine([open_weights(ours(tmp_path / "b", spare=1e-9))]), "embedding use")
    assert text == "Each of the 11 rows of embed_tokens.embedding_weight has had gradients."


def test_rows_that_decay_alone_has_shrunk_are_told_from_trained_ones(tmp_path: Path) -> None:
    before = torch.randn(11, 32)
    after = 0.7 * before
    after[:3] += 0.05 * torch.randn(3, 32)
    files = [saved(tmp_path, step, embed_tokens__embedding_weight=rows) for step, rows in ((1, before), (2, after))]
    health = examine([open_weights(path) for path in files])
    [drift] = [drift for drift in health.courses[0].tensors if drift.name == "embed_tokens.embedding_weight"]
    assert drift.rows_moved == 3
    assert drift.relative == pytest.approx(0.3, abs=0.02)
    assert told(health, "embedding use") == [
        "From step 1 to step 2 8 of 11 rows of embed_tokens.embedding_weight kept their direction: not trained."
    ]


def test_checkpoints_of_different_trainings_are_not_compared_over_steps(tmp_path: Path) -> None:
    health = examine([open_weights(ours(tmp_path / name, trial=name)) for name in ("a", "b")])
    assert health.courses == []
    assert [checkpoint.label for checkpoint in health.checkpoints] == ["a, step 8", "b, step 8"]
    again = examine([open_weights(ours(tmp_path / name, step, "c")) for step, name in ((9, "later"), (3, "sooner"))])
    assert [checkpoint.step for checkpoint in again.checkpoints] == [3, 9]
    assert any("not one value changed" in text for text in told(again, "change"))


# --- the files and the command ---------------------------------------------------------------------------------------


def test_all_five_files_hold_every_tensor_and_escape_names(tmp_path: Path) -> None:
    paths = [saved(tmp_path, step, **{"<img src=x>": torch.ones(2, 2)}) for step in (1, 2)]
    health = examine([open_weights(path) for path in paths])
    write_checkpoint_report(CheckpointReport("<b>", health), tmp_path / "report")
    with (tmp_path / "report" / "tensors.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = parquet.read_table(tmp_path / "report" / "tensors.parquet").to_pylist()
    assert len(rows) == len(table) == 2 * len(health.checkpoints[0].tensors)
    assert [float(row["mean_absolute"]) for row in rows] == [row["mean_absolute"] for row in table]
    assert {row["name"] for row in rows} >= {"H_init", "q_head.bias", "<img src=x>"}
    plain = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [c["step"] for c in plain["health"]["checkpoints"]] == [1, 2]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<img src=x>" not in page
    assert "&lt;img src=x&gt;" in page
    assert "By component" in (tmp_path / "report" / "report.md").read_text()


def test_the_command_takes_trials_folders_and_files_and_refuses_what_holds_no_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str | Path) -> tuple[int, str, str]:
        code = cli.main(["checkpoint", "report", *map(str, arguments), "--no-behaviour", "--storage", str(tmp_path)])
        return code, *capsys.readouterr()

    trial = tmp_path / "hrm-search-0001"
    for attempt, step in ((1, 4), (1, 8), (2, 8)):
        ours(trial / "attempts" / str(attempt) / f"step-{step:08d}", step)
    (trial / "attempts" / "2" / "step-00000008.damaged").mkdir()
    (tmp_path / "files").mkdir()
    original = saved(tmp_path / "files", 3)
    code, out, _ = run(trial, tmp_path / "files", "--json")
    assert code == 0
    found = json.loads(out)["health"]["checkpoints"]
    assert [(Path(c["path"]).parent.name, c["step"]) for c in found] == [("1", 4), ("2", 8), ("files", 3)]
    assert run(trial)[0] == 0
    report = json.loads((tmp_path / "reports" / "hrm-search-0001" / "report.json").read_text())
    assert shlex.split(report["command"])[3:] == [
        "checkpoint",
        "report",
        str(trial),
        "--storage",
        str(tmp_path),
        "--no-behaviour",
    ]

    weights = trial / "attempts" / "1" / "step-00000004" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    (tmp_path / "empty").mkdir()
    code, _, err = run(trial, original, tmp_path / "nowhere")
    assert code == 2
    assert "nowhere: there is no such file or folder" in err
    code, _, err = run(trial, tmp_path / "empty")
    assert code == 2
    assert "empty: holds no checkpoint" in err
    code, _, err = run(trial)
    assert code == 2
    assert "its bytes are not those that the manifest lists" in err


def test_a_trial_in_a_store_is_all_of_its_checkpoints_by_their_newest_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HRM_CACHE", str(tmp_path / "cache"))
    store = Archive(str(tmp_path / "store"))
    for attempt, step in ((1, 4), (1, 8), (2, 8)):
        name = f"attempts/{attempt}/step-{step:08d}"
        store.upload(ours(tmp_path / "here" / name, step), f"sweeps/s/trials/hrm-search-0001/{name}")
    uri = (tmp_path / "store" / "sweeps" / "s" / "trials" / "hrm-search-0001").as_uri()
    found = examine([open_weights(path) for path in checkpoints_at([uri])])
    assert [checkpoint.step for checkpoint in found.checkpoints] == [4, 8]
    assert len(found.courses) == 1
    assert [path.name for path in checkpoints_at([f"{uri}/attempts/1/step-00000004"])] == ["step-00000004"]


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_buffers_of_every_kind_of_model_are_known_by_name(kind: str) -> None:
    model = MODELS[kind].smoke().build(TaskShape(11, 12, 3, next_token=True))
    buffers = dict(model.named_buffers())
    assert {name for name in model.state_dict() if is_buffer(name)} == buffers.keys() & model.state_dict().keys()
