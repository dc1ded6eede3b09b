"""What ``somite-results`` does: a page of results whose every measured figure is read from reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from ...envs.errors import UserError, nearest
from .report import SCHEMA
from .tables import interval, markdown, number

HEAD = """# Results

Written by `somite-results` from `docs/results/results.yaml` and the `results.json` of the reports it names:
no measured figure is typed in. Published figures are quoted with their source. Brackets are 95 % intervals,
over training runs where there are several (their number stands beside the agent), else over episodes.
"""


def write_results(table: Path, output: Path) -> None:
    """Write the page.

    Args:
        table: a YAML file: ``sections``, each of a report, and ``not_run``.
        output: the page.

    Raises:
        UserError: the table, or a report, suite, condition or agent that it names, is not there.
    """
    if not table.is_file():
        raise UserError(f"there is no table {table}")
    described = yaml.safe_load(table.read_text(encoding="utf-8"))
    parts = [HEAD]
    parts += [_section(section, table.parent) for section in described["sections"]]
    if described.get("not_run"):
        rows = [{"not run": row["what"], "command": f"`{row['command']}`"} for row in described["not_run"]]
        parts.append("## Not run\n\n" + markdown(pd.DataFrame(rows)) + "\n")
    output.write_text("\n".join(parts), encoding="utf-8")


def _section(section: Mapping[str, Any], folder: Path) -> str:
    reports = [_read_report(folder / name) for name in _several(section["report"])]
    rows = []
    for name in section.get("agents") or _all_agents(reports):
        rows.append({"agent": _label(reports, name)} | _cells(reports, name, section))
    for published in section.get("published", []):
        cells = {column: str(published.get(column, "–")) for column in section["conditions"]}
        rows.append({"agent": f"{published['agent']}, published"} | cells)
    lines = [f"## {section['title']}", "", section["measure"], ""]
    lines += ["```sh", section["command"].strip(), "```", ""]
    lines += [markdown(pd.DataFrame(rows)), ""]
    if section.get("note"):
        lines += [section["note"].strip(), ""]
    return "\n".join(lines)


def _cells(reports: Sequence[Mapping[str, Any]], agent: str, section: Mapping[str, Any]) -> dict[str, str]:
    value, cells = section.get("value", "mean"), {}
    for column, place in section["conditions"].items():
        suite, _, condition = str(place).partition("/")
        known = {f"{row['suite']}/{row['condition']}" for report in reports for row in report["agents"]}
        if place not in known:
            raise UserError(f"{section['title']}: no report has {place}; {nearest(str(place), known)}")
        found = [
            row
            for report in reports
            for row in report["agents"]
            if (row["agent"], row["suite"], row["condition"]) == (agent, suite, condition)
        ]
        cells[column] = "–" if not found else _cell(pd.Series(found[0]), value)
    return cells


def _cell(row: pd.Series, value: str) -> str:
    if value == "deviation":  # as publications have it, of episodes
        return f"{number(row['mean'])} ± {number(row['deviation'])}"
    row = row.astype(object).where(row.notna(), float("nan"))
    return interval(row, value)


def _label(reports: Sequence[Mapping[str, Any]], agent: str) -> str:
    runs = max((row["runs"] for r in reports for row in r["agents"] if row["agent"] == agent), default=None)
    if runs is None:
        raise UserError(f"no report has an agent {agent!r}; {nearest(agent, _all_agents(reports))}")
    return f"{agent} ({runs} {'run' if runs == 1 else 'runs'})"


def _all_agents(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["agent"] for report in reports for row in report["agents"]))


def _read_report(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"there is no report {path}; somite-evaluate suite=... output=... makes one")
    report = json.loads(path.read_text(encoding="utf-8"))
    if report.get("schema") != SCHEMA:
        raise UserError(f"{path} has the schema {report.get('schema')!r}; expected {SCHEMA!r}")
    return report


def _several(given: Any) -> list[str]:
    return [given] if isinstance(given, str) else list(given)
