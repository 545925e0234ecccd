"""The command `report`: of one sweep or several, from their directories or, where those are gone, from MLflow."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from analysis.document import render_markdown, report_sections
from analysis.figure_files import write_figures
from analysis.joined import join
from analysis.report import Report, build_report, write_report
from analysis.sweep import Sweep
from analysis.table_files import FOLDER as TABLES
from analysis.table_files import columns_and_data, tables_of
from orchestrator.commands import writing
from orchestrator.fetched import sweep_with_rows
from orchestrator.importance import search_findings
from orchestrator.store import SweepStore
from orchestrator.sweep_names import sweep_directory


def report(options: argparse.Namespace) -> int:
    """Write and show the report as it stands; while a driver is at work, its sweep's own files are the driver's."""
    names: list[str | None] = options.names or [None]
    left_out = 0
    if options.from_mlflow is None:
        directories = [sweep_directory(options.storage, name, options.store) for name in names]
    else:
        directories, left_out = _rebuilt(options, names)
    sweep = join([sweep_with_rows(directory) for directory in directories])
    output = _output(options, sweep, directories)
    if _is_drivers(output):
        found = build_report(sweep, search_findings(sweep))
        print(found.to_json() if options.json else render_markdown(found, report_sections(found, sweep)))
        return 0
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    found = write_report(sweep, output, search_findings(sweep), steps=options.steps)
    print(found.to_json() if options.json else (output / "report.md").read_text(encoding="utf-8"))
    if not options.json:
        print(f"\nThe full report: {output / 'report.html'}")
        if left_out:
            print(f"{left_out} trials are left out: they had not ended when MLflow was last written")
    return 0


def for_trackers(sweep: Sweep, report: Report, folder: Path) -> list[Path]:
    """The report's figures and tables as a tracker shows them, each a file: folders below `folder`."""
    figures, tables = folder / "figures", folder / TABLES
    write_figures(report_sections(report, sweep), figures)
    tables.mkdir()
    for name, table in tables_of(report, sweep).items():
        if table.num_rows:
            (tables / f"{name}.json").write_text(json.dumps(columns_and_data(table)))
    return [figures, tables]


def _is_drivers(output: Path) -> bool:
    """Whether a driver is at work in this directory."""
    store = SweepStore(output.parent.parent, output.name)
    return store.directory == output.resolve() and store.is_locked()


def _rebuilt(options: argparse.Namespace, names: list[str | None]) -> tuple[list[Path], int]:
    """The sweeps' directories again, from MLflow, and how many trials are missing in them."""
    from orchestrator.trackers.mlflow_source import rebuild

    own = options.output if len(names) == 1 else None
    found = [rebuild(options.from_mlflow or None, name, options.storage, own) for name in names]
    return [each.directory for each in found], sum(each.left_out for each in found)


def _output(options: argparse.Namespace, sweep: Sweep, directories: list[Path]) -> Path:
    """Where the report goes."""
    if len(directories) == 1:
        return Path(options.output or directories[0])
    return Path(options.output or options.storage / "reports" / "+".join(part.name for part in sweep.parts))
