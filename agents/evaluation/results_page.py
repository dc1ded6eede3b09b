"""What ``somite-results`` does: a page of results whose every measured figure is read from reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

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
        table: a YAML file: ``sections``, each with ``conditions`` of a ``report`` by suites, or ``results``
            of evaluations without, and what was ``published``; and what was ``not_run``.
        output: the page.

    Raises:
        UserError: the table, or a report, suite, condition or agent that it names, is not there.
    """
    described = OmegaConf.to_container(OmegaConf.load(table))
    parts = [HEAD]
    parts += [_section(section, table.parent) for section in described["sections"]]
    if described.get("not_run"):
        rows = [{"not run": row["what"], "command": f"`{row['command']}`"} for row in described["not_run"]]
        parts.append("## Not run\n\n" + markdown(pd.DataFrame(rows)) + "\n")
    output.write_text("\n".join(parts), encoding="utf-8")


def _section(section: Mapping[str, Any], folder: Path) -> str:
    rows = []
    if "report" in section:
        given = section["report"]
        reports = [_read_report(folder / name) for name in ([given] if isinstance(given, str) else given)]
        for name in section.get("agents") or _all_agents(reports):
            rows.append({"agent": _label(reports, name)} | _cells(reports, name, section))
    for own in section.get("results", []):
        rows.append({name: _given(name, value, folder) for name, value in own.items()})
    for published in section.get("published", []):
        rows.append(published | {"agent": f"{published['agent']}, published"})
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = pd.DataFrame(rows, columns=columns).fillna("–").astype(str)
    lines = [f"## {section['title']}", "", section["measure"], ""]
    lines += ["```sh", section["command"].strip(), "```", ""]
    lines += [markdown(table), ""]
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
        row = pd.Series(found[0] if found else {}, dtype=object).replace({None: float("nan")})
        cells[column] = interval(row, value)
        if found and value == "deviation":  # as publications have it, of episodes
            cells[column] = f"{number(row['mean'])} ± {number(row['deviation'])}"
    return cells


def _given(column: str, value: Any, folder: Path) -> str:
    """A cell of a plain evaluation: its ``results.json``, or ``#seen``, ``#unseen``, ``#<body>`` of it."""
    if column == "agent" or ".json" not in str(value):
        return str(value)
    name, _, part = str(value).partition("#")
    path = folder / name
    if not path.is_file():
        raise UserError(f"there are no results {path}; somite-evaluate output=... makes them")
    rows = json.loads(path.read_text(encoding="utf-8"))
    if part in ("seen", "unseen"):
        rows = [row for row in rows if row["seen"] == (part == "seen")]
    elif part:
        rows = [row for row in rows if row["body"] == part]
    if not rows:
        raise UserError(f"{path} has no body {part!r}")
    mean = sum(row["mean"] for row in rows) / len(rows)
    if len(rows) > 1 or rows[0]["interval"] is None:
        return number(mean)
    half = rows[0]["interval"]
    return f"{number(mean)} [{number(mean - half)}, {number(mean + half)}]"


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
