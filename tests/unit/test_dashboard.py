"""The Grafana dashboard asks for what is exported, and is a file that Grafana takes (by the form of Ray's own ones)."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import promql_parser

from orchestrator.metrics import COUNTERS, GAUGES, HISTOGRAMS, names

DASHBOARD: dict[str, Any] = json.loads((Path(__file__).parents[2] / "docs" / "grafana" / "hrm.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
QUERIES: list[str] = [target["expr"] for panel in PANELS for target in panel["targets"]]


def labels_of(exported: str) -> set[str]:
    """The labels of a metric by the name that Prometheus has."""
    name = re.sub(r"_(total|bucket|sum|count)$", "", exported.removeprefix("ray_"))
    _, labels = {**GAUGES, **COUNTERS, **HISTOGRAMS}[name]
    return set(labels) | ({"le"} if exported.endswith("_bucket") else set())


def test_what_the_dashboard_draws_is_exported_and_what_is_exported_is_drawn() -> None:
    drawn = {name for query in QUERIES for name in re.findall(r"ray_hrm_\w+", query)}
    assert drawn - names() == set()
    unseen = {name for name in names() - drawn if not name.startswith("ray_hrm_checkpoint_seconds")}
    assert unseen == set()


def test_queries_select_and_group_by_labels_that_the_metrics_have() -> None:
    for query in QUERIES:
        asked = re.findall(r"(ray_hrm_\w+)\{([^}]*)\}", query)
        assert asked, query
        grouped = {label.strip() for by in re.findall(r"by \(([^)]*)\)", query) for label in by.split(",")}
        for name, selectors in asked:
            selected = set(re.findall(r"(\w+)=~?\"", selectors))
            assert "sweep" in selected, query
            assert selected | grouped <= labels_of(name) | {"le"}, query


def test_every_query_is_promql() -> None:
    for query in QUERIES:
        promql_parser.parse(query.replace("$window", "5m"))


def test_no_label_is_a_trial() -> None:
    for _, labels in {**GAUGES, **COUNTERS, **HISTOGRAMS}.values():
        assert set(labels) <= {"sweep", "task", "arm", "phase", "state", "currency"}


def test_legends_name_labels_that_the_query_leaves() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            left = re.findall(r"by \(([^)]*)\)", target["expr"])
            used = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            if left:
                assert used <= {label.strip() for label in left[0].split(",")}, target
            elif used:
                assert used <= labels_of(re.findall(r"ray_hrm_\w+", target["expr"])[0]), target


def test_the_file_has_the_form_that_grafana_takes() -> None:
    assert DASHBOARD["schemaVersion"] >= 36, "panels of type timeseries, data sources by uid"
    assert DASHBOARD["uid"]
    assert DASHBOARD["title"]
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    assert "ray_hrm_trials" in variables["sweep"]["definition"]
    used = {name for query in QUERIES for name in re.findall(r"\$(\w+)", query)}
    assert used <= variables.keys()
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        assert panel["type"] in ("timeseries", "stat")
        assert panel["title"]
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_no_panel_covers_another() -> None:
    cells = [
        {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        for place in (panel["gridPos"] for panel in PANELS)
    ]
    assert all(x < 24 for cell in cells for x, _ in cell)
    assert all(not one & other for one, other in itertools.combinations(cells, 2))
