"""What may change under a sweep's name and what may not; a sweep that goes on; one that learns from another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ledger_runner import Runner, table
from small_experiment import changed, experiment, write

from analysis.records import SweepRecord
from hrm.errors import SpecError
from orchestrator.experiment import Experiment, load_experiment
from orchestrator.ledger import Ledger
from orchestrator.store import SweepStore
from orchestrator.sweep import _as_it_began, _sweep_record
from orchestrator.validation import with_data

RATE = "optimizer.learning_rate"
SEARCHED: dict[str, Any] = {RATE: {"low": 1e-4, "high": 1e-1, "log": True}, "batch_size": {"choices": [2, 4, 8]}}
ONE: dict[str, Any] = {"arms": {"plain": {}}, "search__trials": 4, "search__generation": 2, "base__num_reports": 2}


def begun(experiment: Experiment, store: SweepStore) -> SweepRecord:
    """What the sweep command does before it connects to a cluster."""
    return _sweep_record(with_data(_as_it_began(experiment, store), store.data_root), store)


@pytest.fixture
def store(tmp_path: Path) -> SweepStore:
    """Of a sweep that has begun."""
    store = SweepStore(tmp_path, "small")
    store.open()
    begun(experiment(tmp_path), store)
    return store


def refusal(folder: Path, store: SweepStore, **changes: Any) -> str:
    """What the sweep says to a changed experiment."""
    with pytest.raises(SpecError) as error:
        begun(experiment(folder, **changes), store)
    return str(error.value)


def run(asked: Experiment, storage: Path) -> Ledger:
    """A sweep to its end; the store is closed."""
    runner = Runner(asked, storage)
    ledger = runner.open()
    if not ledger.store.exists():
        begun(asked, ledger.store)
    runner.drive(ledger)
    ledger.store.close()
    return ledger


# --- changes ---------------------------------------------------------------------------------------------------------


def test_what_changes_no_number_may_change(tmp_path: Path, store: SweepStore) -> None:
    again = begun(experiment(tmp_path, question="?", resources={"max_attempts": 1}), store)
    assert (again.question, again.created) == ("?", store.read_sweep().created)


def test_every_other_change_is_refused_field_by_field(tmp_path: Path, store: SweepStore) -> None:
    text = refusal(tmp_path, store, search__seed=9, budget__amount=5, base__batch_size=16)
    assert "search.seed: was 0 when the sweep began, and is 9. Undo it, or give another --name" in text
    assert "budget.amount: was 4.0 when the sweep began, and is 5.0" in text
    assert "base.batch_size: was 4 when the sweep began, and is 16" in text
    assert len(text.splitlines()) == 3
    assert "arms.third: was 'nothing'" in refusal(tmp_path, store, arms__third={})


def test_a_changed_recipe_is_refused(tmp_path: Path) -> None:
    recipe = changed()["tasks"][0]
    write(tmp_path / "text.yaml", recipe)
    path = write(tmp_path / "small.yaml", changed(tasks=[str(tmp_path / "text.yaml")]))
    store = SweepStore(tmp_path, "other")
    store.open()
    begun(load_experiment(path), store)
    write(tmp_path / "text.yaml", {**recipe, "seed": 1})
    with pytest.raises(SpecError, match=r"datasets\.text: was '\w+' when the sweep began"):
        begun(load_experiment(path), store)


@pytest.mark.parametrize(
    ("dimension", "said"),
    [
        ({"low": 1e-3, "high": 1e-1}, "log: was True when the sweep began, and is False"),
        ({"low": 1, "high": 1, "log": True}, "was 'numbers' when the sweep began, and is 'whole numbers'"),
        ({"choices": [1e-3, 1e-2]}, "choices: was None when the sweep began, and is [0.001, 0.01]"),
    ],
)
def test_a_dimension_may_not_become_another(
    tmp_path: Path, store: SweepStore, dimension: dict[str, Any], said: str
) -> None:
    space = {**SEARCHED, RATE: dimension}
    assert f"space.{RATE}" in (text := refusal(tmp_path, store, space=space))
    assert said in text


def test_choices_stay_and_dimensions_neither_come_nor_go(tmp_path: Path, store: SweepStore) -> None:
    more = {**SEARCHED, "batch_size": {"choices": [2, 4, 8, 16]}}
    assert "space.batch_size.choices: was [2, 4, 8] when" in refusal(tmp_path, store, space=more)
    assert "is 'nothing'" in refusal(tmp_path, store, space={RATE: SEARCHED[RATE]})
    assert "was 'nothing'" in refusal(tmp_path, store, space={**SEARCHED, "clip_norm": {"low": 0.5, "high": 1.0}})


def test_fewer_trials_than_there_are_is_refused_and_more_go_on(tmp_path: Path) -> None:
    first = run(experiment(tmp_path, **ONE), tmp_path)
    assert "search.trials: must be >= 4, which were run already, got 3. Raise it to 4" in refusal(
        tmp_path, first.store, **{**ONE, "search__trials": 3}
    )
    assert "replicas.seeds: must be >= 2" in refusal(tmp_path, first.store, **ONE, replicas__seeds=1)
    found = table(first)
    more = experiment(tmp_path, **{**ONE, "search__trials": 7}, replicas__seeds=3)
    record = begun(more, first.store)
    assert (record.finished, record.planned_trials) == (False, 7 + 3)
    again = run(more, tmp_path)
    after = table(again)
    assert {key: row for key, row in after.items() if key in found} == found, "nothing runs again"
    search = [key for key in after if "search" in key]
    best = min((after[key] for key in search if after[key]["result"]), key=lambda row: row["objective"])
    newest = [row for row in after.values() if row["parameters"] == best["parameters"] and row["source"]]
    assert len(search) == 7
    assert [row["spec"]["seed"] for row in newest] == [1000, 1001, 1002]


def test_a_range_that_moves_searches_in_its_new_place(tmp_path: Path) -> None:
    run(experiment(tmp_path, **ONE), tmp_path)
    moved = {**SEARCHED, RATE: {"low": 1e-2, "high": 1.0, "log": True}}
    ledger = run(experiment(tmp_path, **{**ONE, "search__trials": 10}, space=moved), tmp_path)
    rates = [r.parameters[RATE] for r in ledger.records.values() if r.phase == "search"]
    assert len(rates) == 10
    assert min(rates[:4]) < 1e-2
    assert min(rates[4:]) >= 1e-2


# --- warm start ------------------------------------------------------------------------------------------------------


def earlier(folder: Path) -> Experiment:
    """A sweep `before` that has ended."""
    folder.mkdir(exist_ok=True)
    path = write(folder / "before.yaml", changed(**{**ONE, "search__trials": 8, "search__pruner": {"kind": "none"}}))
    asked = load_experiment(path)
    run(asked, folder)
    return asked


def warm(folder: Path, **changes: Any) -> Experiment:
    return experiment(folder, **{**ONE, "search__warm_start": ["before"], **changes})


def test_what_an_earlier_sweep_found_is_known_and_does_not_count(tmp_path: Path) -> None:
    earlier(tmp_path)
    ledger = run(warm(tmp_path, search__sampler={"kind": "tpe", "startup_trials": 8}), tmp_path)
    study = ledger.lines[0].search
    assert len(study.known_trials()) == 8
    assert len(study.trials()) == 4
    assert len(ledger.records) == ledger.planned_trials == 4 + 2
    assert all(key in ledger.records for key in ("plain-search-0008", "plain-search-0011"))
    cold = run(experiment(tmp_path, **ONE, search__sampler={"kind": "tpe", "startup_trials": 8}), tmp_path / "cold")
    assert min(r.objective for r in ledger.records.values()) < min(r.objective for r in cold.records.values())


def test_a_driver_that_dies_while_it_learns_goes_on(tmp_path: Path) -> None:
    earlier(tmp_path)
    for _ in range(2):  # the second driver finds all of it known
        ledger = Runner(warm(tmp_path), tmp_path).open()
        assert [t.user_attrs["known"] for t in ledger.lines[0].search.known_trials()] == [
            f"before/plain-search-000{n}" for n in range(8)
        ]
        ledger.store.close()


def test_what_lies_outside_the_space_is_not_learnt(tmp_path: Path) -> None:
    asked = earlier(tmp_path)
    narrow = {**SEARCHED, RATE: {"low": 1e-3, "high": 1e-2, "log": True}}
    ledger = Runner(warm(tmp_path, space=narrow), tmp_path).open()
    rates = [t.params[RATE] for t in ledger.lines[0].search.known_trials()]
    assert asked.spec.search.trials > len(rates) > 0
    assert all(1e-3 <= rate <= 1e-2 for rate in rates)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"search__warm_start": ["nobody"]}, r"search\.warm_start\[0\]: there is no sweep at .*nobody\. Give the name"),
        ({"space": {RATE: SEARCHED[RATE]}}, r"space\.batch_size was 'searched' in before, and is 'fixed' here"),
        ({"space": {**SEARCHED, RATE: {"low": 0.1, "high": 0.2}}}, r"learning_rate\.log was True in before, and is"),
        ({"arms": {"others": {}}}, "before has none of the arms others. It has plain"),
        ({"objective": {"metric": "token_accuracy", "direction": "maximize"}}, r"objective\.metric was 'loss' in"),
    ],
)
def test_a_sweep_that_teaches_nothing_is_refused_with_what_differs(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    earlier(tmp_path)
    store = SweepStore(tmp_path, "small")
    store.open()
    with pytest.raises(SpecError, match=said):
        begun(warm(tmp_path, **changes), store)
    assert not store.exists()
