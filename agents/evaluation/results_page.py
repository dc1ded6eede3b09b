"""What ``somite-results`` does: a page of results whose every measured figure is read from reports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from ...envs.errors import UserError, nearest
from .cross_validation import SCHEMA as FOLDS_SCHEMA
from .report import SCHEMA
from .tables import counted, interval, markdown, number

HEAD = """# Results

Written by `somite-results` from `docs/results/results.yaml` and the `results.json` of the reports it names:
no measured figure is typed in. Published figures are quoted with their source. Brackets are 95 % intervals,
over training runs where there are several (their number stands beside the agent), else over episodes.
"""


def write_results(table: Path, output: Path) -> None:
    """Write the page that a YAML file describes.

    It has ``sections``, each with ``conditions`` of a ``report`` by suites, or ``columns`` of a
    ``cross_validation``, or ``results`` of plain evaluations, and what was ``published``; and what was
    ``not_run``.

    Raises:
        UserError: a report, suite, condition or agent that it names is not there.
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
        given = [section["report"]] if isinstance(section["report"], str) else section["report"]
        # A row for each agent, suite and condition; of several reports the first counts.
        agents = pd.concat([pd.DataFrame(_read(folder / name, "report")["agents"]) for name in given])
        agents["place"] = agents["suite"] + "/" + agents["condition"]
        names = agents["agent"].unique()
        for name in section.get("agents") or names:
            own = agents[agents["agent"] == name]
            if own.empty:
                raise UserError(f"no report has an agent {name!r}; {nearest(name, names)}")
            label = f"{name} ({counted(own['runs'].max())})"
            rows.append({"agent": label} | _cells(own, set(agents["place"]), section))
    if "cross_validation" in section:
        arms = pd.DataFrame(_read(folder / section["cross_validation"], "cross-validation")["arms"])
        for _, own in arms.iterrows():
            cells = {column: interval(own, value) for column, value in section["columns"].items()}
            rows.append({"agent": f"{own['arm']} ({counted(own['runs'])})"} | cells)
    for own in section.get("results", []):
        rows.append({name: _given(name, value, folder) for name, value in own.items()})
    for published in section.get("published", []):
        rows.append(published | {"agent": f"{published['agent']}, published"})
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = pd.DataFrame(rows, columns=columns).fillna("–").astype(str)
    lines = [f"## {section['title']}", "", section["measure"], ""]
    lines += ["```sh", section["command"].strip(), "```", "", markdown(table), ""]
    if section.get("note"):
        lines += [section["note"].strip(), ""]
    return "\n".join(lines)


def _cells(own: pd.DataFrame, known: set[str], section: Mapping[str, Any]) -> dict[str, str]:
    """An agent's row, from those that reports have of it."""
    value, cells = section.get("value", "mean"), {}
    for column, place in section["conditions"].items():
        if place not in known:
            raise UserError(f"{section['title']}: no report has {place}; {nearest(str(place), known)}")
        found = own[own["place"] == place]
        if found.empty:
            cells[column] = "–"
        elif value == "deviation":  # as publications have it, of episodes
            cells[column] = f"{number(found['mean'].iloc[0])} ± {number(found['deviation'].iloc[0])}"
        else:
            cells[column] = interval(found.iloc[0], value)
    return cells


def _given(column: str, value: Any, folder: Path) -> str:
    """A cell of a plain evaluation: its ``results.json``, or ``#seen``, ``#unseen``, ``#<body>`` of it."""
    if column == "agent" or ".json" not in str(value):
        return str(value)
    name, _, part = str(value).partition("#")
    rows = pd.DataFrame(_read(folder / name, "results"))
    if part:
        rows = rows[rows["seen"] == (part == "seen") if part in ("seen", "unseen") else rows["body"] == part]
    if rows.empty:
        raise UserError(f"{folder / name} has no body {part!r}")
    mean, half = rows["mean"].mean(), rows["interval"].iloc[0]
    if len(rows) > 1 or pd.isna(half):
        return number(mean)
    return f"{number(mean)} [{number(mean - half)}, {number(mean + half)}]"


def _read(path: Path, what: str) -> Any:
    schema = {"report": SCHEMA, "cross-validation": FOLDS_SCHEMA}.get(what)
    if not path.is_file():
        command = {"report": "somite-evaluate suite=...", "results": "somite-evaluate"}
        told = f"{command.get(what, 'somite-cross-validate')} output=... writes it"
        raise UserError(f"there is no {what} {path}; {told}")
    found = json.loads(path.read_text(encoding="utf-8"))
    if schema is not None and found.get("schema") != schema:
        raise UserError(f"{path} has the schema {found.get('schema')!r}; expected {schema!r}")
    return found
