"""The report of an evaluation by suites: Markdown, HTML, CSV and JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..storage.paths import run_of, training_to_share
from ..storage.policy_json import installed_version
from . import frames, plots
from .conditions import Suite
from .html import write_html
from .plan import AgentPlan
from .recovery import BEFORE, SHARE, WINDOW
from .references import Specialists
from .showing import show_agents
from .store import EpisodeStore
from .tables import agents_table, bodies_table, gaps_table, improvements_table, left_out, suite_table

SCHEMA = "somite-report/1"
"""Of ``results.json``; docs/evaluation.md describes it."""

PACKAGES = ("somite", "torch", "mujoco", "gymnasium", "numpy", "scipy")


@dataclass(frozen=True)
class Report:
    """What an evaluation by suites gave.

    Attributes:
        episodes: `frames.episodes_of`.
        bodies: `frames.by_body`.
        agents: `frames.by_agent`.
        improvements: `frames.improvements`.
        gaps: `frames.gaps`.
        output: folder of the files.
    """

    episodes: pd.DataFrame
    bodies: pd.DataFrame
    agents: pd.DataFrame
    improvements: pd.DataFrame
    gaps: pd.DataFrame
    output: Path


def write_report(
    plans: Sequence[AgentPlan],
    suites: Sequence[Suite],
    store: EpisodeStore,
    output: Path,
    seed: int,
    video: bool = False,
) -> Report:
    """Write the report's files into ``output``.

    Args:
        plans: of all runs, whose chunks the store has.
        suites: in order.
        store: of the episodes.
        output: folder.
        seed: of the starts.
        video: film an episode of each agent.
    """
    tried = {trial.suite for plan in plans for trial in plan.trials}
    suites = [suite for suite in suites if suite.name in tried]
    episodes = frames.episodes_of(plans, lambda chunk: store.get(chunk.key)["bodies"])
    bodies = frames.by_body(episodes, suites, Specialists.for_plans(list(plans)))
    agents = frames.by_agent(bodies, episodes)
    compared = frames.improvements(bodies), frames.gaps(bodies)
    report = Report(episodes, bodies, agents, *compared, output)
    bodies.to_csv(output / "results.csv", index=False)
    described = _as_json(report, plans, suites, seed)
    (output / "results.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    pictures = _pictures(report, plans, suites)
    shown = show_agents(plans, output, seed, video)
    text = _markdown(report, plans, suites, described, pictures, shown)
    (output / "report.md").write_text(text, encoding="utf-8")
    write_html(text, output / "report.html", title="Somite: " + ", ".join(plan.run for plan in plans))
    return report


def _pictures(report: Report, plans: Sequence[AgentPlan], suites: Sequence[Suite]) -> dict[str, Path]:
    """Plots by what they show; those that there is nothing to draw for are left out."""
    folder = report.output / "plots"
    look = plots.Look(list(dict.fromkeys(plan.agent for plan in plans)))
    found = {
        f"degradation {suite.name}": plots.degradation(
            suite, report.agents, look, folder / f"degradation_{suite.name}.png"
        )
        for suite in suites
    }
    found["bodies"] = plots.bodies_as_dots(report.bodies, look, folder / "bodies.png")
    found["profiles"] = plots.profiles(report.bodies, look, folder / "profiles.png")
    found["kept"] = plots.heat_map(report.agents, suites, folder / "kept.png")
    folders = {plan.run: plan.folder for plan in plans}
    found["training"] = plots.training_curves(folders, folder / "training.png")
    return {name: path for name, path in found.items() if path is not None}


def _markdown(
    report: Report,
    plans: Sequence[AgentPlan],
    suites: Sequence[Suite],
    described: Mapping[str, Any],
    pictures: Mapping[str, Path],
    shown: Sequence[str],
) -> str:
    def picture(name: str, text: str) -> list[str]:
        if name not in pictures:
            return []
        return ["", f"![{text}]({pictures[name].relative_to(report.output).as_posix()})"]

    lines = ["# Evaluation", "", agents_table(plans), ""]
    lines += [f"- {plan.run}: {note}" for plan in plans for note in plan.notes]
    lines += ["", *_how_to_read(report, plans, described["seed"])]
    lines += picture("kept", "per cent of the return kept under each condition")
    for suite in suites:
        rows = report.agents[report.agents["suite"] == suite.name]
        lines += ["", f"## {suite.title[0].upper()}{suite.title[1:]} (`{suite.name}`)", ""]
        if len(rows):
            lines += [suite_table(rows)]
        lines += left_out(plans, suite.name)
        lines += picture(f"degradation {suite.name}", f"return under {suite.title}")
        if suite.name == "unseen_morphology":
            lines += picture("bodies", "return on each body, seen and unseen")
            lines += picture("profiles", "share of runs and bodies above each score")
            lines += ["", gaps_table(report.gaps)]
            lines += ["", bodies_table(report.bodies[report.bodies["suite"] == suite.name])]
    compared = improvements_table(report.improvements)
    if compared:
        lines += ["", "## Agents against each other", "", compared]
    if "training" in pictures:
        lines += ["", "## Training"]
        lines += picture("training", "return during training; thin grey lines: single bodies")
    lines += shown
    versions = ", ".join(f"{name} {version}" for name, version in described["versions"].items())
    lines += ["", "## How it was made", "", f"{versions}; Python {platform.python_version()}.", ""]
    return "\n".join(lines)


def _how_to_read(report: Report, plans: Sequence[AgentPlan], seed: int) -> list[str]:
    runs, parts = report.agents["runs"], []
    if (runs > 1).any():
        parts.append("of several training runs: over the runs' means")
    if (runs == 1).any():
        parts.append("of a single run: over its episodes, which say nothing of other training seeds")
    text = (
        f"Policies act deterministically; equal episodes have equal starts (seed {seed}). ± is the standard "
        f"deviation of episodes, brackets are 95 % intervals ({'; '.join(parts)}). *IQM* is the mean of the "
        "middle half of runs and bodies. *Change* is the mean difference to the first condition of the suite "
        "in the same episodes, *kept* the share of its return."
    )
    if report.bodies["recovered"].notna().any():
        text += (
            f" *Recovery*: steps until the mean reward of the next {WINDOW} steps is again {SHARE:.0%} of "
            f"that of the {BEFORE} steps before, the median over the episodes that come so far, and their "
            "share."
        )
    if report.bodies["normalized"].notna().any():
        text += " *Normalised*: 0 for random actions, 1 for an ordinary network trained on that body alone."
    elif any(plan.kind == "limbs" for plan in plans):
        text += " There are no specialists of these bodies to normalise by."
    return [text]


def _as_json(
    report: Report, plans: Sequence[AgentPlan], suites: Sequence[Suite], seed: int
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "seed": seed,
        "versions": {name: installed_version(name) for name in PACKAGES},
        "runs": [
            {
                "run": plan.run,
                "agent": plan.agent,
                "kind": plan.kind,
                "sha256": plan.description["sha256"],
                "training": training_to_share(plan.description.get("training", {}), run_of(plan.folder)),
                "seen": sorted(plan.seen),
                "notes": list(plan.notes),
            }
            for plan in plans
        ],
        "suites": [
            {
                "name": suite.name,
                "title": suite.title,
                "conditions": [asdict(condition) for condition in suite.conditions],
            }
            for suite in suites
        ],
        "agents": _records(report.agents),
        "bodies": _records(report.bodies),
        "improvements": _records(report.improvements),
        "gaps": _records(report.gaps),
        "left_out": [
            {"run": plan.run, "suite": t.suite, "condition": t.condition, "why": t.why_not}
            for plan in plans
            for t in plan.trials
            if t.why_not
        ],
    }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON has them: no NaN."""
    return [{name: _value(value) for name, value in row.items()} for row in frame.to_dict("records")]


def _value(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
