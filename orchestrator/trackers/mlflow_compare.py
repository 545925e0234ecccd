"""Comparisons that stand ready in MLflow's pages: saved views of the experiment (MLflow 3.16 and newer).

Each sweep gets two, in the menu `Views` of the runs page: its arms on test with their curves by arm, and its search
with parallel coordinates over what was searched. MLflow keeps a saved view as a tag of the experiment. One that is
there is left alone: somebody may have changed it.
"""

from __future__ import annotations

import base64
import json
import logging
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from analysis.records import SweepRecord
from orchestrator.trackers.mlflow_view import allowed_name, milliseconds

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)
_PREFIX = "mlflow.sharedViewState."
_LONGEST = 5000
"""Signs of an experiment's tag that every version of MLflow takes."""
_RUNS_SHOWN = 200

State = dict[str, Any]


def prepare_views(client: MlflowClient, experiment_id: str, sweep: SweepRecord, parent: str) -> dict[str, str]:
    """See to it that the sweep's views are there; gives their names by their ids."""
    there = client.get_experiment(experiment_id).tags
    names = {}
    for number, (name, state) in enumerate(views_of(sweep, parent).items(), start=1):
        view = f"{parent[:16]}{number}"
        value = json.dumps({"name": name, "createdAt": milliseconds(sweep.created), "state": _packed(state)})
        if len(value) > _LONGEST:
            _log.warning("MLflow's comparison %r is left out: its %d signs are too many for a tag.", name, len(value))
            continue
        if f"{_PREFIX}{view}" not in there:
            client.set_experiment_tag(experiment_id, f"{_PREFIX}{view}", value)
        names[view] = name
    return names


def views_of(sweep: SweepRecord, parent: str) -> dict[str, State]:
    """By name, what each view's page holds."""
    test, best, curve = (allowed_name(f"{kind}/{sweep.metric}") for kind in ("test", "best", "validation"))
    searched = searched_parameters(sweep.experiment)
    columns = [f"metrics.`{test}`", f"metrics.`{best}`", *(f"params.`{name}`" for name in ("arm", "task", "seed"))]
    replicas = _state(parent, "replica", test, sweep.direction, columns)
    replicas |= _charts({"Test": [_bar(test)], "Validation while training": [_line(curve, sweep.budget)]})
    by = ["task", "arm"] if len(sweep.tasks) > 1 else ["arm"]
    keys = [{"mode": "param", "groupByData": name} for name in by]
    replicas["groupBy"] = {"aggregateFunction": "average", "groupByKeys": keys}
    columns = [columns[1], columns[2], *(f"params.`{name}`" for name in searched)]
    search = _state(parent, "search", best, sweep.direction, columns)
    parallel = {
        f"What was searched by {names}": [_parallel(["arm", *of], best)] for names, of in _spaces(sweep).items()
    }
    scatter = {"Each parameter": [_scatter(name, best) for name in searched]}
    search |= _charts({**parallel, **scatter, "Validation while training": [_line(curve, sweep.budget)]})
    return {f"{sweep.name}: arms on test": replicas, f"{sweep.name}: search": search}


def searched_parameters(experiment: Mapping[str, Any]) -> list[str]:
    """Every path that an arm's space or the shared one names."""
    spaces = [experiment.get("space") or {}, *((arm.get("space") or {}) for arm in experiment.get("arms", {}).values())]
    return list(dict.fromkeys(name for space in spaces for name in space))


def _spaces(sweep: SweepRecord) -> dict[str, list[str]]:
    """What all arms search, then each arm that searches more: MLflow leaves a run out that lacks a parameter."""
    shared = list(sweep.experiment.get("space") or {})
    found = {"all arms": shared} if shared else {}
    for name, arm in sweep.experiment.get("arms", {}).items():
        if own := list(arm.get("space") or {}):
            found[name] = [*shared, *own]
    return found


def _state(parent: str, phase: str, order: str, direction: str, columns: Sequence[str]) -> State:
    """The page of the sweep's trials of a phase, best first."""
    return {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent}' AND tags.phase = '{phase}'",
        "orderByKey": f"metrics.`{order}`",
        "orderByAsc": direction == "minimize",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(columns),
        "columnOrder": list(columns),
        "columnWidths": {},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOW_ALL",
        "viewMaximized": False,
        "runListHidden": False,
        "autoRefreshEnabled": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


def _charts(sections: Mapping[str, Sequence[State]]) -> State:
    """Charts below titles, in this order."""
    charts, shown = [], []
    for number, (title, inside) in enumerate(sections.items()):
        key = f"section-{number}"
        wide = {"columns": 2 if len(inside) > 1 else 1, "cardHeight": 400}
        kept = {"display": True, "isReordered": True, "deleted": False, "isGenerated": False}
        shown.append({"uuid": key, "name": title, **wide, **kept})
        charts += [
            {
                "uuid": f"{key}-{place}",
                "metricSectionId": key,
                "runsCountToCompare": _RUNS_SHOWN,
                "deleted": False,
                "isGenerated": False,
                **chart,
            }
            for place, chart in enumerate(inside)
        ]
    return {"compareRunCharts": charts, "compareRunSections": shown, "isAccordionReordered": True}


def _bar(metric: str) -> State:
    return {"type": "BAR", "metricKey": metric}


def _line(metric: str, budget: Mapping[str, Any]) -> State:
    """Against the axis by which arms are matched."""
    axis = str(budget.get("axis", "steps"))
    across = {"xAxisKey": "step"}
    if axis != "steps":
        across = {"xAxisKey": "metric", "selectedXAxisMetricKey": f"progress/{axis}"}
    return {
        "type": "LINE",
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "lineSmoothness": 0,
        "useGlobalLineSmoothing": False,
        "useGlobalXaxisKey": False,
        "ignoreOutliers": False,
        **across,
    }


def _parallel(parameters: Sequence[str], metric: str) -> State:
    return {"type": "PARALLEL", "selectedParams": list(parameters), "selectedMetrics": [metric], "showAllRuns": True}


def _scatter(parameter: str, metric: str) -> State:
    across, up = {"key": parameter, "type": "PARAM"}, {"key": metric, "type": "METRIC"}
    return {"type": "SCATTER", "xaxis": across, "yaxis": up}


def _packed(state: State) -> str:
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
