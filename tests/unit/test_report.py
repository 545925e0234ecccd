"""The report claims what the numbers allow, keeps what failed in sight, and needs no network."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sweep_fixture import RIVALS, replica, search_trial, write_sweep, write_trial

from analysis.curves import curve_of, telling
from analysis.report import Report, build_report, write_report
from analysis.search_findings import Importance, SearchFindings
from analysis.sweep import load_sweep


def report_of(directory: Path) -> Report:
    return build_report(load_sweep(directory))


def mattered(arm: str, parameter: str, share: float) -> SearchFindings:
    return SearchFindings([Importance("text", arm, parameter, share, share / 2, share, 0.01, 6)])


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is in the JSON")


def written(directory: Path, name: str = "report.json") -> Any:
    return json.loads((directory / name).read_text(), parse_constant=refuse_constant)


class Tags(HTMLParser):
    """Collects tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.text += data


def test_a_clear_winner_is_named_with_its_interval(tmp_path: Path) -> None:
    answer = report_of(write_sweep(tmp_path / "s")).answer
    assert answer["best_arm"] == "transformer"
    assert answer["decided"] is True
    assert answer["probability_best"] > 0.95
    assert answer["sentence"].startswith(
        "transformer is best: test loss 0.1900 nats per token (95 % interval 0.1875 to 0.1925, 3 seeds), "
        "better than every other arm (Holm-corrected p < 0.05)."
    )


def test_a_second_sentence_says_how_the_best_hrm_compares(tmp_path: Path) -> None:
    arms = {**RIVALS, "hrm_deep": [0.199, 0.2, 0.202]}
    sentence = report_of(write_sweep(tmp_path / "s", arms)).answer["sentence"]
    assert "The best HRM arm, hrm_deep, is worse by 0.0103 nats per token (95 % interval 0.0089 to 0.0118" in sentence


def test_no_winner_is_declared_when_the_intervals_overlap(tmp_path: Path) -> None:
    close = {"transformer": [0.189, 0.201, 0.191], "hrm": [0.193, 0.190, 0.202]}
    answer = report_of(write_sweep(tmp_path / "s", close)).answer
    assert answer["decided"] is False
    assert answer["sentence"].startswith("No winner: transformer has the lowest mean test loss")
    assert "do not allow to place it before hrm" in answer["sentence"]
    assert "is worse by 0.00133 nats per token on these seeds, not for certain (95 % interval" in answer["sentence"]


def test_arms_that_are_equal_at_every_seed_are_called_equal(tmp_path: Path) -> None:
    nothing = {"transformer": [0.0, 0.0], "hrm": [0.0, 0.0]}
    report = report_of(write_sweep(tmp_path / "s", nothing, metric="exact_accuracy", direction="maximize"))
    assert report.answer["decided"] is False
    assert report.answer["sentence"] == (
        "No winner: transformer and hrm have the same mean test exact_accuracy, 0.00 (equal at 2 seeds), and no arm a "
        "higher one. The best HRM arm, hrm, is as good at all 2 paired seeds."
    )


def test_one_seed_is_marked_and_decides_nothing(tmp_path: Path) -> None:
    write_sweep(tmp_path / "s", {"transformer": [0.1], "hrm": [0.9]})
    report = write_report(load_sweep(tmp_path / "s"), tmp_path / "s")
    metric = report.arms[0].metric
    assert metric is not None
    assert (metric.low, metric.high, metric.n, metric.note) == (None, None, 1, "one seed")
    assert report.answer["decided"] is False
    assert report.answer["probability_best"] is None
    assert "one seed" in report.answer["sentence"]
    assert "one seed" in Tags((tmp_path / "s/report.html").read_text()).text


def test_without_replicas_the_search_stands_in_and_says_that_it_is_no_evidence(tmp_path: Path) -> None:
    report = report_of(write_sweep(tmp_path / "s", {}, search={"transformer": 4, "hrm": 4}))
    assert report.answer["best_arm"] is not None
    assert report.answer["decided"] is False
    assert "validation of the search, one seed: not evidence" in report.answer["sentence"]
    assert {arm.metric.split for arm in report.arms if arm.metric} == {"validation"}
    assert report.comparisons == []


def test_an_arm_with_only_a_search_is_never_compared_with_replicas(tmp_path: Path) -> None:
    report = report_of(write_sweep(tmp_path / "s", RIVALS, search={"mlp": 1}))
    assert report.answer["best_arm"] == "transformer"
    assert report.answer["decided"] is False
    assert "mlp has no completed replica" in report.answer["sentence"]
    assert "mlp" not in {difference["other"] for difference in report.comparisons}


def test_a_sweep_without_any_result_has_no_best_arm(tmp_path: Path) -> None:
    write_sweep(tmp_path / "s", {}, search={"transformer": 0}, finished=False)
    report = write_report(load_sweep(tmp_path / "s"), tmp_path / "s")
    assert report.answer["best_arm"] is None
    assert "no trial has completed" in report.answer["sentence"]


def test_a_running_sweep_says_so_on_top_and_decides_nothing(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "s", finished=False)
    running = replace(replica("text", "transformer", 3, 0.2), state="running", result=None)
    write_trial(directory, running)
    report = write_report(load_sweep(directory), directory)
    assert report.answer["decided"] is False
    assert "No winner so far" in report.answer["sentence"]
    assert report.trials["running"] == 1
    text = Tags((directory / "report.html").read_text()).text
    assert 0 < text.index("This sweep has not finished") < text.index("No winner so far")
    assert (directory / "report.md").read_text().index("has not finished") < 400


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "s", finished=False)
    with (directory / "trials/text-hrm-replica-0000/records.jsonl").open("a") as file:
        file.write('{"index": 25, "progr')
    sweep = load_sweep(directory)
    trial = sweep.select(arm="hrm", phase="replica")[0]
    curve = curve_of(sweep, trial)
    assert curve is not None
    assert len(curve.values) == 24


def test_the_leader_that_lost_a_replica_does_not_win(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "s")
    lost = replace(
        replica("text", "transformer", 3, 0.2), state="failed", result=None, objective=None, reason="diverged"
    )
    write_trial(directory, lost)
    report = report_of(directory)
    assert report.answer["decided"] is False
    assert "1 of its 4 replicas failed" in report.answer["sentence"]


def test_failures_are_listed_with_reason_and_log(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "s")
    report = write_report(load_sweep(directory), directory)
    failure = next(failure for failure in report.failures if failure.key == "text-hrm-search-0002")
    assert failure.reason == "TrialError: the loss is not finite at step 61"
    assert (directory / failure.log).is_file()
    links = {
        attributes.get("href") for tag, attributes in Tags((directory / "report.html").read_text()).tags if tag == "a"
    }
    assert failure.log in {str(link).removeprefix("./") for link in links}
    assert failure.log in (directory / "report.md").read_text()


def test_the_highest_value_wins_when_the_direction_is_maximize(tmp_path: Path) -> None:
    arms = {"transformer": [0.50, 0.51, 0.52], "hrm": [0.70, 0.712, 0.719]}
    report = report_of(write_sweep(tmp_path / "s", arms, metric="exact_accuracy", direction="maximize"))
    assert (report.answer["best_arm"], report.answer["decided"]) == ("hrm", True)
    assert report.reference is None
    assert "nats" not in report.answer["sentence"]


def test_the_best_checkpoint_is_chosen_on_validation_not_on_test(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "s", {"transformer": [0.1, 0.2, 0.3], "hrm": [0.4, 0.5, 0.6]})
    write_trial(directory, replace(replica("text", "transformer", 2, 0.3), objective=0.0001))
    assert report_of(directory).arms[0].best_checkpoint.startswith("trials/text-transformer-replica-0002/attempts/1/")


def test_nan_never_appears_in_the_json(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "s", {"transformer": [0.1, 0.2, float("nan")], "hrm": [0.4, 0.5, 0.6]})
    write_trial(directory, replace(search_trial("text", "hrm", 0), objective=float("nan")))
    write_report(load_sweep(directory), directory, mattered("hrm", "optim.learning_rate", float("nan")))
    report = written(directory)
    assert report["arms"][0]["metric"]["n"] == 2
    assert report["arms"][0]["replicas_failed"] == 1
    assert report["importance"]["hrm"]["optim.learning_rate"] is None


def test_the_json_holds_what_programs_rely_on(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "s")
    write_report(load_sweep(directory), directory, mattered("hrm", "optim.learning_rate", 0.8))
    report = written(directory)
    assert report["schema"] == 1
    assert report["matched_by"] == {"axis": "tokens", "amount": 1_966_080}
    assert report["reference"]["generator_cross_entropy"] == 0.1712
    assert report["reference"]["ratio"] == pytest.approx(0.19 / 0.1712)
    assert report["reproduce"]["command"].startswith("python -m orchestrator sweep")
    assert report["trials"]["total"] == sum(
        report["trials"][state] for state in ("waiting", "running", "completed", "pruned", "failed")
    )
    assert report["arms"][0]["metric"]["name"] == "loss"
    assert report["arms"][0]["best_configuration"]["model.num_heads"] == 4
    assert report["cost"]["flops"] > report["arms"][0]["flops"] > 0
    assert not list(directory.glob(".*.partial"))


def test_each_task_has_its_own_answer_and_no_arm_wins_both_by_winning_one(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "s", tasks=("text", "maze"))
    for seed in range(3):
        write_trial(directory, replica("maze", "hrm", seed, 0.01 + 0.001 * seed))
    report = write_report(load_sweep(directory), directory)
    assert [(answer.task, answer.best_arm) for answer in report.answers] == [("text", "transformer"), ("maze", "hrm")]
    assert report.answer["best_arm"] is None
    assert report.answer["decided"] is False


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "s")
    write_report(load_sweep(directory), directory, mattered("hrm", "optim.learning_rate", 0.8))
    page = (directory / "report.html").read_text()
    parsed = Tags(page)
    for tag, attributes in parsed.tags:
        assert tag != "link"
        assert not (tag in ("script", "img", "iframe", "source") and "src" in attributes)
        assert not re.match(r"(https?:)?//", attributes.get("href") or "")
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert sum("plotly.js v" in part for part in page.split("<script>")) == 1
    assert ("name", "viewport") in [
        item for tag, attributes in parsed.tags if tag == "meta" for item in attributes.items()
    ]


def test_everything_from_data_is_escaped(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    directory = write_sweep(
        tmp_path / "s",
        {f"a{evil[:4]}b": [0.1, 0.2, 0.3]} | {"hrm": [0.4, 0.5, 0.6]},
        search={},
        question=f"{evil}</script>",
        command=f"run {evil} | head",
        environment={evil: evil},
        name=f"{evil}",
    )
    bad = replace(search_trial("text", "hrm", 2), key="hrm-search-0002", reason=f"{evil}</script><b>")
    write_trial(directory, bad)
    write_report(load_sweep(directory), directory, mattered(evil, f"</script>{evil}", 1.0))
    page = (directory / "report.html").read_text()
    assert evil not in page.split("</head>")[1]
    assert not [attributes for _, attributes in Tags(page).tags if "onerror" in attributes]
    assert evil not in (directory / "report.md").read_text().replace("    run " + evil, "")


def test_a_long_curve_is_thinned_and_keeps_its_extremes() -> None:
    x = np.arange(100_000, dtype=np.float64)
    y = np.sin(x / 50)
    y[43_210], y[76_543] = 99.0, -99.0
    kept = telling(y, 1000)
    thin_x, thin_y = x[kept], y[kept]
    assert len(thin_x) <= 1000
    assert (thin_x[0], thin_x[-1]) == (0.0, 99_999.0)
    assert (thin_y.max(), thin_y.min()) == (99.0, -99.0)
    assert np.all(np.diff(thin_x) > 0)
