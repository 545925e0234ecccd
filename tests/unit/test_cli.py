"""The commands in this process: what they print, in words and as JSON, and how they end."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_experiment import SMALL, changed, write
from sweep_fixture import write_sweep

from hrm.checkpoint import read_checkpoint
from hrm.models.hrm import HRMSpec
from hrm.tasks import TaskShape
from orchestrator import cli
from orchestrator.store import SweepStore

OPTIONS = [Path(cli.__file__), *Path(cli.__file__).parent.glob("*_options.py")]


class Command:
    """Runs commands and keeps what they said."""

    def __init__(self, storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.storage, self._capsys = storage, capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str | Path) -> int:
        code = cli.main([*map(str, arguments), "--storage", str(self.storage)])
        self.out, self.err = self._capsys.readouterr()
        return code

    def json(self, *arguments: str | Path, code: int = 0) -> Any:
        """The value that the command prints with --json, on one line and alone on standard output."""
        assert self(*arguments, "--json") == code
        return json.loads(self.out)


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("COLUMNS", "200")
    return Command(tmp_path / "runs", capsys)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write(tmp_path / "small.yaml", changed(smoke={"budget": {"amount": 2}, "base": {"num_reports": 1}}))


def test_every_command_is_there_when_it_is_called() -> None:
    places = re.findall(r'"([a-z_]+(?:\.[a-z_]+)*):([a-z_]+)"', "".join(p.read_text() for p in OPTIONS))

    assert len(places) > 8
    for module, name in places:
        assert callable(getattr(importlib.import_module(f"orchestrator.{module}"), name)), f"{module}:{name}"


# --- the input is wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["validate", "train", "sweep"])
def test_every_problem_of_a_file_goes_to_standard_error_with_exit_2(run: Command, tmp_path: Path, command: str) -> None:
    path = write(tmp_path / "bad.yaml", changed(serch={}, base__batch_size=0))
    assert run(command, path) == 2
    assert run.out == ""
    lines = run.err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"error: {path}: serch: there is no such field. Did you mean `search`?")
    assert lines[1] == f"error: {path}: base.batch_size: must be >= 1, got 0. Raise it."
    assert not run.storage.exists()


def test_problems_as_json_have_place_rule_and_way_out(run: Command, tmp_path: Path) -> None:
    path = write(tmp_path / "bad.yaml", changed(base__batch_size=0))
    problem = {"place": f"{path}: base.batch_size", "rule": "must be >= 1, got 0", "way_out": "Raise it"}
    assert run.json("validate", path, code=2) == {"problems": [problem]}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["validate", "none.yaml"], "error: none.yaml: cannot be read: No such file or directory"),
        (["validate", "GOOD", "--set", "x"], "error: --set x: must have the form path=value"),
        (
            ["train", "GOOD", "--arm", "plane"],
            "error: --arm plane: is not in the experiment. Give one of plain, control.",
        ),
        (["train", "GOOD", "--task", "x"], "error: --task x: is not in the experiment. Give one of red_team."),
        (["train", "GOOD", "--seed", "-1"], "seed: must be >= 0, got -1. Raise it."),
        (["status"], "there is no sweep yet. Start one with `sweep`, or give its --storage."),
        (["stop", "none"], "there is no sweep 'none'. Start one"),
        (["clean", "none"], "there is no sweep 'none'"),
        (["report", "none"], "there is no sweep 'none'"),
    ],
)
def test_wrong_input_ends_with_2_and_a_way_out(run: Command, good: Path, arguments: list[str], said: str) -> None:
    assert run(*[str(good) if a == "GOOD" else a for a in arguments]) == 2
    assert said in run.err
    assert "Traceback" not in run.err


def test_smoke_without_a_section_ends_with_2(run: Command, tmp_path: Path) -> None:
    assert run("validate", write(tmp_path / "x.yaml", SMALL), "--smoke") == 2
    assert "smoke: is missing, and --smoke needs it. Add a `smoke:` mapping." in run.err


def test_an_unknown_command_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["swep"])
    assert ended.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


def test_the_exit_code_reaches_the_shell_and_help_is_quick(tmp_path: Path) -> None:
    module = [sys.executable, "-m", "orchestrator"]
    wrong = subprocess.run([*module, "validate", "none.yaml"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    code = "import sys; from orchestrator import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n"
    heavy = "print({'ray', 'torch', 'optuna', 'mlflow'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code + heavy], capture_output=True, text=True, check=True)
    assert "exit codes: 0 done, 1 some trials failed, 2 the input is wrong" in shown.stdout
    assert shown.stdout.endswith("set()\n")


# --- validate, schema, doctor ----------------------------------------------------------------------------------------


def test_memory_that_does_not_suffice_ends_with_1_and_the_way_out_and_a_defect_with_its_traceback(
    run: Command, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: Exception) -> None:
        def train_one(options: object) -> int:
            raise error

        monkeypatch.setattr("orchestrator.single.train_one", train_one)

    fail(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    assert run("train", good) == cli.TRIALS_FAILED
    assert "out_of_memory" in run.err
    assert "Lower batch_size" in run.err
    fail(RuntimeError("a defect"))
    with pytest.raises(RuntimeError, match="a defect"):
        run("train", good)


def test_validate_says_what_a_sweep_would_do(run: Command, good: Path) -> None:
    assert run("validate", good, "--set", "search.trials=5") == 0
    assert run.out.startswith(f"{good}: good. 2 arms on 1 task: 10 search trials and 4 replicas.\n")
    expected = {"arms": ["plain", "control"], "tasks": ["red_team"], "search_trials": 12, "replicas": 4}
    assert run.json("validate", good).items() >= expected.items()
    assert not (run.storage / "sweeps").exists()


def test_validate_shows_what_each_arm_costs_and_how_well_they_match(run: Command, good: Path) -> None:
    found = run.json("validate", good, "--set", "arms.plain.space.model.H_cycles.choices=[1, 3]")
    plain, control = found["costs"]
    assert (plain["arm"], plain["parameters"], control["parameters"]) == ("plain", 29_602, 16_256)
    assert (plain["steps"], plain["table_values"], plain["parameters_range"]) == (4, 0, None)
    low, high = plain["flops_per_token_range"]
    assert low < plain["flops_per_token"] < high
    assert found["compared_to"] == "plain"
    assert run("validate", good) == 0
    for words in ("29,602 1.000", "16,256 0.549", f"{found['comparison']}\n"):
        assert words in run.out, words
    assert run("validate", good, "--set", "match.to=control") == 0
    assert "29,602 1.821" in run.out


def test_validate_names_every_recipe_that_cannot_be_built(run: Command, good: Path) -> None:
    few = {"kind": "sudoku", "size": 4, "min_givens": 15, "num_train": 8, "num_validation": 8, "num_test": 8}
    other = write(good.with_name("other.yaml"), {**few, "num_validation": 5000})
    assert run("validate", good, "--set", f"tasks={json.dumps([{**few, 'num_train': 5000}, str(other)])}") == 2
    assert [line.split(" asks")[0] for line in run.err.splitlines()] == [
        "error: dataset sudoku: num_train:",
        "error: dataset sudoku: num_validation:",
    ]


def test_validate_without_a_storage_that_can_be_written_is_refused(run: Command, good: Path) -> None:
    run.storage.write_text("a file")
    assert run("validate", good) == 2
    assert "data: cannot be written: Not a directory. Give another --storage, or change its rights." in run.err


@pytest.mark.parametrize("command", ["validate", "sweep"])
def test_arms_that_do_not_match_are_refused_before_anything_runs(run: Command, good: Path, command: str) -> None:
    assert run(command, good, "--set", "match.parameters=0.05") == 2
    (line,) = run.err.splitlines()
    assert line.startswith("error: match.parameters: in arm control: parameters must be within 5 % of the 29,602 of ")
    assert line.endswith(", or raise match.parameters to 0.46.")
    assert not list(run.storage.glob("sweeps/*/sweep.json"))
    assert not list(run.storage.glob("sweeps/*/trials/*"))


@pytest.mark.parametrize(("of", "field"), [("experiment", "arms"), ("trial", "optimizer"), ("recipe", "oneOf")])
def test_schema_prints_a_json_schema(run: Command, of: str, field: str) -> None:
    schema = run.json("schema", "--of", of)
    assert field in schema.get("properties", schema)


def test_doctor_gives_a_verdict_on_every_line(run: Command) -> None:
    found = run.json("doctor")
    assert found["verdict"] in ("ok", "warn")
    assert all(line["verdict"] in ("ok", "warn") for line in found["findings"])


def test_doctor_ends_with_3_where_the_storage_cannot_be_written(run: Command) -> None:
    run.storage.write_text("a file")
    assert run("doctor") == 3


# --- looking at sweeps -----------------------------------------------------------------------------------------------


def test_list_without_sweeps_says_how_to_start_one(run: Command) -> None:
    assert run("list") == 0
    assert "Start one: python -m orchestrator sweep" in run.out
    assert run.json("list") == []


def test_list_shows_every_sweep_with_its_state(run: Command) -> None:
    write_sweep(run.storage / "sweeps" / "done")
    write_sweep(run.storage / "sweeps" / "half", finished=False)
    write_sweep(run.storage / "sweeps" / "busy", finished=False)
    busy = SweepStore(run.storage, "busy")
    busy.open()
    rows = run.json("list")
    assert {row["name"]: row["state"] for row in rows} == {"busy": "running", "done": "finished", "half": "stopped"}
    assert rows[0]["trials"] == {"completed": 21, "pruned": 3, "failed": 3}
    assert run("list") == 0
    assert all(word in run.out for word in ("busy", "running", "half", "stopped", "21 completed"))


def test_status_shows_every_trial_and_why_some_failed(run: Command) -> None:
    write_sweep(run.storage / "sweeps" / "done")
    assert run("status", "done") == 0
    assert "finished" in run.out
    assert run.out.count("text-hrm-search-") == 6 + 2  # six rows, the failed one's reason and its log
    assert f"TrialError: the loss is not finite at step 61; log {run.storage}/sweeps/done/trials/" in run.out


def test_status_as_json_has_the_answer_and_each_trial(run: Command) -> None:
    write_sweep(run.storage / "sweeps" / "done")
    found = run.json("status", "done")
    assert (found["state"], len(found["each"]), found["trials"]["failed"]) == ("finished", 27, 3)
    assert found["answer"]["sentence"]
    pruned = next(trial for trial in found["each"] if trial["state"] == "pruned")
    assert (pruned["step"], pruned["reason"]) == (160, "below the median of its rung at step 160")


def test_status_without_a_name_is_the_newest_sweep(run: Command) -> None:
    for name in ("b", "a"):
        write_sweep(run.storage / "sweeps" / name)
        time.sleep(0.02)
    assert run.json("status")["each"]
    assert run("status", "c") == 2
    assert "there is no sweep 'c'. The sweeps here are b, a." in run.err


def test_report_writes_its_files_only_where_no_driver_is_at_work(run: Command) -> None:
    directory = write_sweep(run.storage / "sweeps" / "done")
    store = SweepStore(run.storage, "done")
    store.open()
    assert run.json("report", "done")["arms"]
    assert not (directory / "report.html").exists()
    store.close()
    assert run("report", "done") == 0
    assert str(directory / "report.html") in run.out
    assert (directory / "report.html").exists()


# --- stop and clean --------------------------------------------------------------------------------------------------


def test_stop_without_a_driver_is_refused(run: Command) -> None:
    write_sweep(run.storage / "sweeps" / "done")
    assert run("stop", "done") == 2
    assert "no driver is at work on this sweep. There is nothing to stop" in run.err
    assert not SweepStore(run.storage, "done").stop_file.exists()


def test_stop_asks_the_driver_and_waits_until_it_has_left(run: Command) -> None:
    write_sweep(run.storage / "sweeps" / "busy", finished=False)
    store = SweepStore(run.storage, "busy")
    store.open()
    left: list[bool] = []

    def driver() -> None:
        while not store.stop_file.exists():
            time.sleep(0.01)
        left.append(True)
        store.close()

    thread = threading.Thread(target=driver)
    thread.start()
    found = run.json("stop", "busy")
    thread.join()
    assert left
    assert found["stopped"]
    assert "run `sweep` again to go on" in found["message"]


def test_clean_keeps_the_best_of_each_arm_and_what_an_unfinished_trial_needs(run: Command) -> None:
    directory = write_sweep(run.storage / "sweeps" / "done")
    for trial in sorted((directory / "trials").iterdir()):
        checkpoint = trial / "attempts/1/step-00000440"
        checkpoint.mkdir(parents=True)
        (checkpoint / "model.safetensors").write_bytes(bytes(1000))
    waiting = directory / "trials/text-lstm-search-0005/trial.json"
    waiting.write_text(waiting.read_text().replace('"completed"', '"waiting"'))
    best = {arm["best_checkpoint"] for arm in run.json("report", "done")["arms"]}
    assert len(best) == 3
    assert run.json("clean", "done")["freed_bytes"] == (27 - 3 - 1) * 1000
    kept = {str(path.relative_to(directory)) for path in directory.glob("trials/*/attempts/*/step-*")}
    assert kept == best | {"trials/text-lstm-search-0005/attempts/1/step-00000440"}
    assert run.json("clean", "done")["freed_bytes"] == 0


def test_clean_under_a_driver_is_refused(run: Command) -> None:
    write_sweep(run.storage / "sweeps" / "busy")
    store = SweepStore(run.storage, "busy")
    store.open()
    assert run("clean", "busy") == 2
    assert "a driver is at work on this sweep. Wait for it, or end it with `stop`." in run.err
    store.close()


# --- train -----------------------------------------------------------------------------------------------------------


def test_train_runs_one_arm_in_seconds_and_names_its_checkpoint(run: Command, good: Path) -> None:
    found = run.json("train", good, "--smoke", "--arm", "control", "--seed", "3")
    assert found["progress"]["step"] == 2
    assert found["test"]["loss"] > 0
    manifest = read_checkpoint(Path(found["directory"]) / found["best_checkpoint"]).manifest
    assert (manifest["spec"]["model"]["kind"], manifest["spec"]["seed"]) == ("transformer", 3)
    assert Path(found["directory"]).name == f"control-{manifest['trial_id']}"


def test_train_again_gives_the_same_numbers_without_training(run: Command, good: Path) -> None:
    first = run.json("train", good, "--smoke")
    again = run.json("train", good, "--smoke")
    assert again == first
    assert run("train", good, "--smoke") == 0
    assert f"test loss {first['test']['loss']:.4f}" in run.out
    assert {path.name for path in Path(first["directory"]).glob("attempts/*")} == {"1"}  # nothing new was written
    shown = run.json("checkpoint", "show", first["directory"])
    assert shown["path"] == f"{first['directory']}/{first['best_checkpoint']}"


def test_a_misspelt_option_is_refused_by_its_command_which_names_the_right_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["checkpoint", "evaluate", "somewhere", "--spilt", "test"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "checkpoint evaluate: error: unrecognized arguments: --spilt test. Did you mean --split?" in said


def test_train_shows_its_reports_and_keeps_a_log(run: Command, good: Path) -> None:
    assert run("train", good) == 0
    assert "report 4/4, step 4" in run.out
    log = next(run.storage.glob("single/plain-*/log.txt"))
    assert "ended with an error" not in log.read_text()


def test_an_objective_that_nothing_measures_is_refused_before_anything_runs(run: Command, good: Path) -> None:
    assert run("train", good, "--set", "objective.metric=los") == 2
    assert "objective.metric: must be one of loss, perplexity, token_accuracy, exact_accuracy" in run.err
    assert "on red_team, got 'los'" in run.err


def test_a_trial_that_fails_ends_with_1_and_its_reason(run: Command, good: Path) -> None:
    assert run("train", good) == 0
    for manifest in run.storage.glob("single/plain-*/attempts/1/step-*/manifest.json"):
        manifest.write_text(manifest.read_text().replace('"dataset_fingerprint": "', '"dataset_fingerprint": "0'))
    assert run("train", good) == 1
    assert run.err.startswith("error: dataset_changed: ")


# --- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """A state dict of the original code with its configuration."""
    spec = HRMSpec(hidden_size=16, num_heads=2, H_layers=1, L_layers=1)
    state = spec.build(TaskShape(11, 16)).state_dict()
    torch.save({f"_orig_mod.model.inner.{name}": value for name, value in state.items()}, tmp_path / "step_40")
    (tmp_path / "all_config.yaml").write_text(json.dumps({"arch": {"num_heads": 2, "H_cycles": 3}}))
    return tmp_path / "step_40"


def test_a_checkpoint_goes_from_the_original_code_through_the_storage_and_back(run: Command, original: Path) -> None:
    found = run.json("checkpoint", "import", original)
    assert Path(found["checkpoint"]).parent == run.storage / "imported"
    assert (found["kind"], found["step"], found["dtypes"]) == ("hrm", 40, {"float32": 14})
    assert found["spec"]["model"]["H_cycles"] == 3
    assert sum(found["components"].values()) == found["num_parameters"] + found["components"]["initial states"]
    back = original.with_name("back") / "step_40"
    assert run.json("checkpoint", "export", found["checkpoint"], "--output", back)["tensors"] == 14
    there, here = (torch.load(path, weights_only=True) for path in (original, back))
    assert list(there) == list(here)
    assert all(torch.equal(there[key], here[key]) for key in there)


def test_show_says_what_is_in_a_checkpoint_ours_or_not(run: Command, original: Path) -> None:
    assert run("checkpoint", "show", original) == 0
    assert "hrm, 27,010 parameters without tables (14 float32 tensors), step 40" in run.out
    assert "initial states" in run.out
    assert "assumed, as neither shapes nor a configuration say: " in run.out
    folder = run.json("checkpoint", "import", original, "--set", "num_heads=4")["checkpoint"]
    assert run("checkpoint", "show", folder) == 0
    assert '"num_heads": 4' in run.out
    assert f"from {original} (original state dict, sha256 " in run.out


def test_a_trained_checkpoint_is_shown_and_its_averaged_or_raw_weights_are_written(run: Command, good: Path) -> None:
    trained = run.json("train", good, "--set", "base.ema=0.5", "--arm", "control")
    path = Path(trained["directory"]) / trained["best_checkpoint"]
    shown = run.json("checkpoint", "show", path)
    assert (shown["kind"], shown["averaged"], shown["step"]) == ("transformer", True, trained["best_step"])
    assert shown["validation"] == trained["best_validation"]
    held = read_checkpoint(path)
    for which, expected in (("ema", held.evaluation_weights), ("raw", held.model)):
        target = good.with_name(f"{which}.safetensors")
        assert run("checkpoint", "export", path, "--output", target, "--format", "safetensors", "--weights", which) == 0
        found = load_file(target)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_wrong_checkpoints_end_with_2_and_a_way_out(run: Command, original: Path, good: Path) -> None:
    folder = run.json("checkpoint", "import", original)["checkpoint"]
    damaged = original.with_name("damaged")
    damaged.write_bytes(original.read_bytes()[:-500])
    trained = run.json("train", good, "--arm", "control")
    ours = Path(trained["directory"]) / trained["best_checkpoint"]
    for arguments, said in (
        (
            ["import", damaged],
            "damaged: is not an archive as torch.save writes it, or it is cut off. Give an intact file.",
        ),
        (["show", damaged], "is cut off. Give an intact file."),
        (["import", good.parent], "is no folder of a model: it has no config.json"),
        (["import", folder], "is a checkpoint of ours already. Use it as it is"),
        (["import", original], "is there already. Remove it, or give another --output."),
        (["import", original, "--output", good / "x"], "cannot be written: "),
        (["import", original, "--output", ours.parent / "step-00000000"], "is a folder of a trial"),
        (["import", original, "--config", "none.yaml"], "none.yaml: cannot be read"),
        (["show", good.parent / "none"], "there is no such file"),
        (["show", good.parent], "is no folder of a model: it has no config.json"),
        (["export", original, "--output", "x"], "is no whole checkpoint"),
        (["export", folder, "--output", good], "is there already"),
        (["export", folder, "--output", good / "x"], "cannot be written: "),
        (["export", folder, "--output", "x", "--weights", "ema"], "it has no averaged weights. Leave --weights out"),
        (["export", ours, "--output", "x"], "no model of kind 'transformer'. Export it with --format safetensors"),
    ):
        assert run("checkpoint", *arguments) == 2, arguments
        assert said in run.err, arguments
        assert "Traceback" not in run.err


def test_a_trial_starts_from_a_checkpoint_that_the_file_names(run: Command, good: Path) -> None:
    first = run.json("train", good)
    path = Path(first["directory"]) / first["best_checkpoint"]
    second = run.json("train", good, "--set", f"arms.plain.patch.initialize_from={path}")
    assert second["directory"] != first["directory"]
    manifest = read_checkpoint(Path(second["directory"]) / second["best_checkpoint"]).manifest
    assert manifest["lineage"]["trial_id"] == read_checkpoint(path).manifest["trial_id"]
