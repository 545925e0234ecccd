"""The command `report`: from a sweep's directory or, where that is gone, from its runs in MLflow."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from analysis.markdown import render_markdown
from analysis.report import Report, build_report, write_report
from analysis.sweep import load_sweep
from orchestrator.store import SweepStore


def report_here(store: SweepStore, options: argparse.Namespace) -> None:
    """Write and show the report of a sweep as it stands; while a driver is at work, its own files are the driver's."""
    if options.output is None and store.is_locked():
        _show(build_report(load_sweep(store.directory), _importance(store.directory)), options.json)
    else:
        _write_and_show(store.directory, options.output or store.directory, options.json)


def report_from_mlflow(options: argparse.Namespace) -> None:
    """Rebuild the sweep's directory from MLflow, write and show its report."""
    from orchestrator.trackers.mlflow_source import rebuild

    rebuilt = rebuild(options.from_mlflow or None, options.name, options.storage, options.output)
    _write_and_show(rebuilt.directory, rebuilt.directory, options.json)
    if rebuilt.left_out and not options.json:
        print(f"{rebuilt.left_out} trials are left out: they had not ended when MLflow was last written")


def _importance(directory: Path) -> dict[str, dict[str, float]] | None:
    """As the driver found it, which alone has the studies."""
    known = directory / "report.json"
    return json.loads(known.read_text()).get("importance") if known.exists() else None


def _write_and_show(sweep: Path, output: Path, as_json: bool) -> None:
    output.mkdir(parents=True, exist_ok=True)
    _show(write_report(load_sweep(sweep), output, _importance(sweep)), as_json)
    if not as_json:
        print(f"\nThe full report: {output / 'report.html'}")


def _show(report: Report, as_json: bool) -> None:
    print(report.to_json() if as_json else render_markdown(report))
