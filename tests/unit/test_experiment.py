"""An experiment file is checked before anything starts: every mistake is named with its place, all at once."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from small_experiment import HRM, SMALL, TRANSFORMER, changed, experiment, write

from hrm.errors import Problem, SpecError
from hrm.strict_yaml import read_yaml
from orchestrator.experiment import load_experiment
from orchestrator.resources import ResourceSpec
from orchestrator.schema import schema_of

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))
SECOND_STAGE = "text_stages_finetune"
"""Loads where the first has finished: tests/end_to_end/test_experiments.py."""


def problems(folder: Path, data: dict[str, Any], **options: Any) -> dict[str, Problem]:
    """What is wrong with a file, by place within it."""
    path = write(folder / "x.yaml", data)
    with pytest.raises(SpecError) as caught:
        load_experiment(path, **options)
    found = {p.place.removeprefix(f"{path}: "): p for p in caught.value.problems}
    assert len(found) == len(caught.value.problems), "a problem is said twice"
    assert all(p.rule and p.way_out for p in caught.value.problems), "a problem without a way out"
    return found


def test_the_small_experiment_is_good_and_arms_start_from_base_and_patch(tmp_path: Path) -> None:
    loaded = experiment(tmp_path)
    assert loaded.name == "small"
    assert [(arm.name, arm.task) for arm in loaded.arms] == [("plain", "red_team"), ("control", "red_team")]
    trial = loaded.arms[1].trial({"optimizer.learning_rate": 0.02}, seed=5)
    assert (trial.model.kind, trial.optimizer.learning_rate, trial.batch_size, trial.seed) == (
        "transformer",
        0.02,
        4,
        5,
    )
    assert trial.budget.amount == 4


def test_all_mistakes_of_a_file_come_at_once_each_at_its_place(tmp_path: Path) -> None:
    data = changed(serch={}, search__trials=0, search__sampler={"kind": "tpee"}, budget__axis="step")
    data["tasks"] = ["red_tem"]
    data["base"]["optimizer"]["learning_rat"] = 0.1
    data["arms"]["control"]["patch"]["model"] = {**TRANSFORMER, "num_layrs": 2}
    data["arms"]["plain"] = {
        "descripton": "x",
        "space": {
            "model.H_cycls": {"choices": [1]},
            "model.L_cycles": {"low": 0, "high": 2},
            "optimizer.beta1": {"low": 0.9, "high": 0.5},
        },
    }
    found = problems(tmp_path, data)
    assert set(found) == {
        "serch",
        "search.trials",
        "search.sampler.kind",
        "budget.axis",
        "tasks[0]",
        "base.optimizer.learning_rat",
        "arms.control.patch.model.num_layrs",
        "arms.plain.descripton",
        "arms.plain.space.model.H_cycls",
        "arms.plain.space.model.L_cycles",
        "arms.plain.space.optimizer.beta1",
    }


@pytest.mark.parametrize(
    ("change", "place", "rule", "way_out"),
    [
        ({"serch": {}}, "serch", "there is no such field", "Did you mean `search`? The fields here are arms, base"),
        ({"search__trails": 3}, "search.trails", "there is no such field", "Did you mean `trials`?"),
        ({"arms__plain": {"pach": {}}}, "arms.plain.pach", "there is no such field", "Did you mean `patch`?"),
        ({"search__trials": 0}, "search.trials", "must be >= 1, got 0", "Raise it"),
        ({"search__trials": 2.5}, "search.trials", "must be a whole number, got 2.5", "without a fraction"),
        ({"search__trials": "8"}, "search.trials", "must be a whole number, got '8'", "without quotes"),
        ({"search__deterministic": "yes"}, "search.deterministic", "must be true or false, got 'yes'", "without"),
        ({"search__pruner": {"kind": "medien"}}, "search.pruner.kind",
         "must be one of hyperband, median, none, patience, percentile, successive_halving, threshold, got 'medien'",
         "Did you mean `median`?"),
        ({"search__pruner": {}}, "search.pruner.kind", "is required and missing", "Say which kind"),
        ({"search__pruner": {"kind": "median", "startup": 1}}, "search.pruner.startup", "there is no such field",
         "Did you mean `startup_trials`? The fields here are kind, startup_trials, warmup_reports"),
        ({"objective__direction": "min"}, "objective.direction", "must be one of minimize, maximize, got", "Give one"),
        ({"tasks": None}, "tasks", "is required and missing", "Add it"),
        ({"arms": {}}, "arms", "must hold at least 1, got 0", "Add"),
        ({"arms__plain": {"tasks": ["red_tem"]}}, "arms.plain.tasks", "there is no task 'red_tem'",
         "The tasks are red_team"),
        ({"arms__plain": {"tasks": []}}, "arms.plain.tasks", "must hold at least 1, got 0", "Add"),
        ({"tasks": [3]}, "tasks[0]", "must be text or a mapping, got 3", "Correct it"),
        ({"tasks": ["red_tem"]}, "tasks[0]", "there is no dataset recipe 'red_tem'", "Did you mean `red_team`?"),
        ({"tasks": [{"kind": "red_tem"}]}, "tasks[0].kind", "must be one of", "Did you mean `red_team`?"),
        ({"tasks": [{"kind": "red_team", "num_tran": 5}]}, "tasks[0].num_tran", "there is no such field", "Did"),
        ({"tasks": [SMALL["tasks"][0], SMALL["tasks"][0]]}, "tasks[1]", "a second task is named 'red_team'", "recipe"),
        ({"base__model": {**HRM, "hiden_size": 4}}, "base.model.hiden_size", "in arm plain: there is no such field",
         "Did you mean `hidden_size`?"),
        ({"base__model": {**HRM, "hidden_size": 18}}, "base.model",
         "in arm plain: hidden_size must be a multiple of 2 * num_heads, got 18 and 2 heads", "Change"),
        ({"base__optimizer__learning_rate": -1}, "base.optimizer.learning_rate", "must be > 0, got -1", "Raise it"),
        ({"arms__control__patch__model__kind": "transfomer"}, "arms.control.patch.model.kind",
         "must be one of hrm, hrm_text, transformer, trm, universal_transformer, urm, got 'transfomer'",
         "Did you mean `transformer`?"),
        ({"base__seed": 3}, "base.seed", "is the same for all arms", "Set search.seed at the top of the file"),
        ({"base__budget": {}}, "base.budget", "is the same for all arms", "Set budget at the top"),
        ({"arms__plain": {"patch": {"task": {}}}}, "arms.plain.patch.task", "is the same for all arms", "Set tasks"),
        ({"space": {"budget.amount": {"choices": [1, 2]}}}, "space.budget.amount", "is the same for all", "budget"),
        ({"match": {"paramters": 0.1}}, "match.paramters", "there is no such field", "Did you mean `parameters`?"),
        ({"match": {"parameters": -1}}, "match.parameters", "must be >= 0, got -1", "Raise it"),
        ({"match": {"to": "plane"}}, "match.to", "there is no arm 'plane'", "The arms are plain, control"),
        ({"resources__gpus_per_worker": -1}, "resources.gpus_per_worker", "must be >= 0, got -1", "Raise it"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place_rule_value_and_way_out(
    tmp_path: Path, change: dict[str, Any], place: str, rule: str, way_out: str
) -> None:
    found = problems(tmp_path, changed(**change))
    assert list(found) == [place]
    assert found[place].rule.startswith(rule)
    assert way_out in found[place].way_out


@pytest.mark.parametrize(
    ("dimension", "rule", "way_out"),
    [
        ({"low": 3, "high": 1}, "low must be <= high, got low 3 and high 1", "Swap them"),
        (
            {"low": 0, "high": 1, "log": True},
            "low must be > 0 on a logarithmic scale, got 0",
            "Raise it or set log: false",
        ),
        ({"low": 1}, "a dimension needs low and high, or choices", "Add them"),
        ({"low": 1, "high": 2, "choices": [1]}, "choices and low/high/log/step exclude each other", "Keep one of them"),
        ({"choices": []}, "choices must hold at least one value, got []", "Add values"),
        ({"low": 1, "high": 4, "log": True, "step": 2}, "step and log exclude each other", "Remove one"),
        ({"low": 0, "high": 4}, "low must be >= 1, got 0", "Raise low"),
        ({"low": 1.5, "high": 4}, "low must be a whole number, got 1.5", "Write low without"),
        ({"choices": [1, "two"]}, "choice must be a whole number, got 'two'", "Write this choice without quotes"),
    ],
)
def test_a_bad_dimension_is_named_in_the_space_of_its_arm(
    tmp_path: Path, dimension: dict[str, Any], rule: str, way_out: str
) -> None:
    found = problems(tmp_path, changed(arms__plain={"space": {"model.H_cycles": dimension}}))
    assert list(found) in (["arms.plain.space.model.H_cycles"], ["arms.plain.space.model.H_cycles.low"])
    problem = next(iter(found.values()))
    assert problem.rule.startswith(rule)
    assert way_out in problem.way_out


def test_a_high_end_and_a_word_that_is_none_of_those_allowed_are_named(tmp_path: Path) -> None:
    space = {
        "model.dropout": {"low": 0.0, "high": 1.5},
        "schedule.kind": {"choices": ["cosin"]},
        "modle.dropout": {"choices": [0.1]},
        "batch_size.rows": {"choices": [1]},
    }
    found = problems(tmp_path, changed(arms__plain={"space": space}))
    say = {place.removeprefix("arms.plain.space."): str(p).split(f"{place}: ")[1] for place, p in found.items()}
    assert say["model.dropout"] == "high must be < 1, got 1.5. Lower high."
    assert say["schedule.kind"].endswith("cosine_restarts, got 'cosin'. Did you mean `cosine`?")
    assert say["modle.dropout"].startswith("there is no such field. Did you mean `model`?")
    assert say["batch_size.rows"] == "`batch_size` holds no fields. Name a field that is there."


def test_a_shared_dimension_that_one_arm_lacks_names_that_arm(tmp_path: Path) -> None:
    found = problems(tmp_path, changed(space={"model.num_layers": {"choices": [1, 2]}}))
    assert found["space.model.num_layers"].rule == "in arm plain: there is no such field"


def test_a_dimension_whose_end_breaks_a_rule_about_another_field_says_which(tmp_path: Path) -> None:
    found = problems(tmp_path, changed(arms__plain={"space": {"model.num_heads": {"choices": [2, 3]}}}))
    rule = found["arms.plain.space.model.num_heads"].rule
    assert rule == "with 3, model: hidden_size must be a multiple of 2 * num_heads, got 16 and 3 heads"


def test_a_model_that_sees_the_future_is_refused_on_text_in_base_patch_and_space(tmp_path: Path) -> None:
    data = changed(arms__plain={"space": {"model.causal": {"choices": [True, False]}}})
    data["arms"]["control"]["patch"]["model"]["causal"] = False
    found = problems(tmp_path, data)
    assert set(found) == {"arms.control.patch.model.causal", "arms.plain.space.model.causal"}
    assert all("sees the future is refused on next-token data" in p.rule for p in found.values())
    assert all(p.way_out == "Set model.causal: true" for p in found.values())
    data["base"]["model"]["causal"] = False
    assert "base.model.causal" in problems(tmp_path, data)


def test_halting_by_q_is_refused_on_text(tmp_path: Path) -> None:
    found = problems(tmp_path, changed(base__model={**HRM, "halting": {"rule": "q", "segments": 4}}))
    assert found["base.model.halting.rule"].way_out.startswith("Set model.halting.rule: none")


def test_a_base_mistake_is_said_once_for_many_arms_and_tasks(tmp_path: Path) -> None:
    other = write(tmp_path / "other.yaml", {**SMALL["tasks"][0], "seed": 1})
    found = problems(tmp_path, changed(tasks=[SMALL["tasks"][0], str(other)], base__clip_norm=0))
    assert [str(p) for p in found.values()] == [f"{tmp_path / 'x.yaml'}: base.clip_norm: must be > 0, got 0. Raise it."]


def test_a_mistake_in_a_recipe_file_is_named_by_that_file(tmp_path: Path) -> None:
    recipe = write(tmp_path / "bad.yaml", {"kind": "red_team", "num_train": 1})
    assert found_at(problems(tmp_path, changed(tasks=[str(recipe)]))) == [f"{recipe}: num_train"]


def found_at(found: dict[str, Problem]) -> list[str]:
    return list(found)


def test_a_file_that_is_missing_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.yaml: cannot be read: No such file.*Give the path of a YAML file"):
        load_experiment(tmp_path / "none.yaml")


# --- --set and --smoke -----------------------------------------------------------------------------------------------


def test_set_changes_a_field_and_reads_it_as_yaml(tmp_path: Path) -> None:
    path = write(tmp_path / "x.yaml", SMALL)
    overrides = [
        "search.trials=4",
        "base.optimizer.learning_rate=2e-3",
        "base.optimizer.weight_decay=0.5",
        "question=no",
    ]
    loaded = load_experiment(path, overrides)
    assert (loaded.spec.search.trials, loaded.spec.question) == (4, "no")
    assert loaded.arms[0].trial({}, 0).optimizer.learning_rate == 2e-3


def test_every_wrong_set_is_named(tmp_path: Path) -> None:
    found = problems(tmp_path, SMALL, overrides=["x", "=3", "search.trials.x=4", "search.trials=["])
    assert list(found) == ["--set x", "--set =3", "--set search.trials.x=4", "--set search.trials=["]
    assert all("--set search.trials=4" in p.way_out for p in found.values())


def test_what_is_no_number_is_refused(tmp_path: Path) -> None:
    found = problems(tmp_path, SMALL, overrides=["budget.amount=.nan"])
    assert found["budget.amount"].rule == "must be a finite number, got nan"


def test_a_misspelt_set_is_a_misspelt_field(tmp_path: Path) -> None:
    assert "Did you mean `search`?" in problems(tmp_path, SMALL, overrides=["serch.trials=4"])["serch"].way_out


def test_smoke_lays_its_section_over_the_file_under_another_name(tmp_path: Path) -> None:
    path = write(tmp_path / "x.yaml", changed(smoke={"search": {"trials": 1}, "base": {"batch_size": 2}}))
    loaded = load_experiment(path, smoke=True)
    assert (loaded.name, loaded.spec.search.trials, loaded.spec.search.generation) == ("x-smoke", 1, 3)
    assert loaded.arms[0].trial({}, 0).batch_size == 2
    assert load_experiment(path).spec.search.trials == 6


@pytest.mark.parametrize(("change", "rule"), [({}, "is missing"), ({"smoke": 3}, "must be a mapping, got 3")])
def test_smoke_without_a_section_is_refused(tmp_path: Path, change: dict[str, Any], rule: str) -> None:
    assert problems(tmp_path, changed(**change), smoke=True)["smoke"].rule.startswith(rule)


# --- what may change under a sweep's name, resources, schema --------------------------------------------------------


def test_place_speed_and_words_are_no_science(tmp_path: Path) -> None:
    before = experiment(tmp_path).spec.science()
    quiet = {
        "question": "?",
        "resources": {"max_attempts": 1},
        "smoke": {"search": {}},
        "trackers": [{"kind": "mlflow"}],
        "match": {"parameters": 0.5},
    }
    assert experiment(tmp_path, **quiet).spec.science() == before
    assert experiment(tmp_path, search__seed=1).spec.science() != before


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus", "fit"),
    [
        ({}, 4, 0, 4),
        ({"cpus_per_worker": 3}, 8, 0, 2),
        ({"workers_per_trial": 2, "gpus_per_worker": 0.5}, 8, 2, 2),
        ({"gpus_per_worker": 0.1}, 100, 0.3, 3),
        ({"max_concurrent_trials": 3}, 8, 0, 3),
    ],
)
def test_as_many_trials_run_as_fit(resources: dict[str, Any], cpus: float, gpus: float, fit: int) -> None:
    assert ResourceSpec(**resources).concurrency([(cpus, gpus)]) == fit


def test_a_worker_does_not_span_nodes() -> None:
    small = [(2.0, 0.0)] * 3
    assert ResourceSpec(cpus_per_worker=2, workers_per_trial=3).concurrency(small) == 1
    with pytest.raises(SpecError, match=r"the cluster's nodes have 2 CPUs and 0 GPUs, 2 CPUs and 0 GPUs, 2 CPUs"):
        ResourceSpec(cpus_per_worker=4).concurrency(small)


def test_a_trial_that_does_not_fit_is_refused_with_the_numbers() -> None:
    with pytest.raises(SpecError, match=r"of 4 CPUs and 1 GPUs, the cluster's nodes have 2 CPUs and 0 GPUs\. Lower"):
        ResourceSpec(cpus_per_worker=4, gpus_per_worker=1.0).concurrency([(2, 0)])


@pytest.mark.parametrize(
    ("resources", "launcher"),
    [
        ({}, "in_process"),
        ({"workers_per_trial": 2}, "ray_train"),
        ({"gpus_per_worker": 1.0}, "ray_train"),
        ({"launcher": "ray_train"}, "ray_train"),
    ],
)
def test_auto_takes_the_trial_process_where_it_suffices(resources: dict[str, Any], launcher: str) -> None:
    assert (
        ResourceSpec(**resources).resolved([(8, 2)] if "gpus_per_worker" in resources else [(8, 0)]).resolved_launcher
        == launcher
    )


@pytest.mark.parametrize("path", [p for p in EXPERIMENTS if p.stem != SECOND_STAGE], ids=lambda p: p.name)
@pytest.mark.parametrize("smoke", [False, True])
def test_every_experiment_of_the_house_is_good_also_as_a_smoke_test(path: Path, smoke: bool) -> None:
    assert load_experiment(path, smoke=smoke).arms


@pytest.mark.parametrize("smoke", [False, True])
def test_a_second_stage_says_what_has_to_be_run_before_it(tmp_path: Path, smoke: bool) -> None:
    path = ROOT / "experiments" / f"{SECOND_STAGE}.yaml"
    with pytest.raises(SpecError) as caught:
        load_experiment(path, smoke=smoke, storage=tmp_path)
    first = "text_stages_pretrain-smoke" if smoke else "text_stages_pretrain"
    places = {problem.place.removeprefix(f"{path}: ") for problem in caught.value.problems}
    assert places == {"arms.finetuned.patch.initialize_from.sweep", "tasks[0].tokenizer.sweep"}
    assert all(problem.rule.startswith(f"there is no sweep {first!r}") for problem in caught.value.problems)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.name)
def test_the_json_schema_accepts_the_experiments_and_finds_a_misspelt_field(path: Path) -> None:
    schema, data = schema_of("experiment"), read_yaml(path)
    jsonschema.validate(data, schema)
    wrong = deepcopy(data)
    wrong["base"]["batch_siz"] = 4
    with pytest.raises(jsonschema.ValidationError, match="batch_siz"):
        jsonschema.validate(wrong, schema)


def test_the_schemas_of_trial_and_recipe_know_every_kind() -> None:
    jsonschema.validate(SMALL["tasks"][0], schema_of("recipe"))
    assert {"HRMSpec", "TransformerSpec", "AdamATan2Spec"} <= schema_of("trial")["$defs"].keys()
