"""The report of an evaluation by suites: Markdown, one HTML file, CSV and JSON."""

from __future__ import annotations

import base64
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markdown_it import MarkdownIt

from ...envs.locomotion.pictures.rendering import file_name
from ...envs.task_set import task_set_of, with_changes
from ..show.figures import inside_figure
from ..show.inside import looks_inside, record_inside
from ..show.video import film_episode, to_film
from ..storage.paths import run_of, training_to_share
from ..storage.policy import load_policy
from ..storage.policy_json import installed_version
from ..storage.untrusted import check_inside
from . import plots, statistics, tables
from .episodes import BEFORE, SHARE, WINDOW
from .plan import AgentPlan, EpisodeStore
from .references import specialists_of
from .suites import OTHER_BODIES, Suite

SCHEMA = "somite-report/1"  # of results.json; docs/evaluation.md describes it
PACKAGES = ("somite", "torch", "mujoco", "gymnasium", "numpy", "scipy")
INSIDE_STEPS = 200  # that are looked into; midway sensors are shuffled, so that attention is seen to follow

RATIOS = (
    "Ratios of sums over bodies, with 95 % intervals by a bootstrap over bodies, and over training runs if "
    "there are several: each resample has the same bodies on both sides. *Joint* is a policy that saw all."
)

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 82rem; margin: 2rem auto;
       padding: 0 1.5rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th { background: #f5f5f5; text-align: left; }
tr:hover td { background: #fafafa; }
img { max-width: 100%; height: auto; margin: .8rem 0; }
code { background: #f2f2f2; padding: .1rem .3rem; border-radius: 3px; }
"""


class Report:
    """Statistics of plans whose chunks the store has, and their files in the folder ``output``."""

    def __init__(
        self,
        plans: Sequence[AgentPlan],
        suites: Sequence[Suite],
        store: EpisodeStore,
        output: Path,
        seed: int,
    ) -> None:
        tried = {trial.suite for plan in plans for trial in plan.trials}
        self.plans, self.output, self.seed = plans, output, seed
        self.suites = [suite for suite in suites if suite.name in tried]
        episodes = statistics.episodes_of(plans, lambda chunk: store[chunk.key])
        self.bodies = statistics.by_body(episodes, self.suites, specialists_of(plans))
        self.agents = statistics.by_agent(self.bodies, episodes)
        self.few_shot = statistics.few_shot(self.bodies, self.suites)
        self.reached = statistics.reached(self.few_shot) if len(self.few_shot) else pd.DataFrame()
        # A policy's merit is not what an agent learns from nothing.
        trained = [suite.name for suite in self.suites if suite.trains]
        untrained = self.bodies[~self.bodies["suite"].isin(trained)]
        self.improvements, self.gaps = statistics.improvements(untrained), statistics.gaps(untrained)
        self.ratios = statistics.ratios(untrained)
        self.versions = {name: installed_version(name) for name in PACKAGES}

    def write(self, video: bool) -> None:
        """Write all files; ``video``: film each agent."""
        self.bodies.to_csv(self.output / "results.csv", index=False)
        values = json.dumps(self._values(), indent=1)
        (self.output / "results.json").write_text(values + "\n", encoding="utf-8")
        text = self._markdown(video)
        (self.output / "report.md").write_text(text, encoding="utf-8")
        title = "Somite: " + ", ".join(plan.run for plan in self.plans)
        write_html(text, self.output / "report.html", title)

    def _values(self) -> dict[str, Any]:
        tables_by_name = ("agents", "bodies", "improvements", "gaps", "ratios", "few_shot", "reached")
        return {
            "schema": SCHEMA,
            "seed": self.seed,
            "versions": self.versions,
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
                for plan in self.plans
            ],
            "suites": [
                {"name": s.name, "title": s.title, "conditions": [asdict(c) for c in s.conditions]}
                for s in self.suites
            ],
            **{name: records(getattr(self, name)) for name in tables_by_name},
            "left_out": [
                {"run": plan.run, "suite": t.suite, "condition": t.condition, "why": t.why_not}
                for plan in self.plans
                for t in plan.trials
                if t.why_not
            ],
        }

    def _markdown(self, video: bool) -> str:
        """The report's text; its pictures and videos are made."""
        plans, agents, bodies, folder = self.plans, self.agents, self.bodies, self.output / "plots"
        looks = plots.looks_of([plan.agent for plan in plans])
        lines = ["# Evaluation", "", tables.markdown(tables.agents_table(plans)), ""]
        lines += [f"- {plan.run}: {note}" for plan in plans for note in plan.notes]
        lines += ["", self._how_to_read()]
        untrained = [suite for suite in self.suites if not suite.trains]
        kept = plots.heat_map(agents, untrained, folder / "kept.png")
        lines += _picture("per cent of the return kept under each condition", kept)
        for suite in self.suites:
            rows = agents[agents["suite"] == suite.name]
            lines += ["", f"## {suite.title[0].upper()}{suite.title[1:]} (`{suite.name}`)", ""]
            if suite.trains:
                lines += self._few_shot(suite, looks, folder)
            elif len(rows):
                lines.append(tables.markdown(tables.suite_table(rows)))
            lines += tables.left_out(plans, suite.name)
            curves = plots.degradation(suite, agents, looks, folder / f"degradation_{suite.name}.png")
            lines += _picture(f"return under {suite.title}", curves)
            if suite.name == OTHER_BODIES:
                dots = plots.bodies_as_dots(bodies, looks, folder / "bodies.png")
                lines += _picture("return on each body, seen and unseen", dots)
                shares = plots.profiles(bodies, looks, folder / "profiles.png")
                lines += _picture("share of runs and bodies above each score", shares)
                shown = self.gaps.map(lambda cell: cell if isinstance(cell, str) else tables.number(cell))
                lines += ["", "" if shown.empty else tables.markdown(shown)]
                if len(self.ratios):
                    lines += ["", tables.markdown(tables.ratios_table(self.ratios)), "", RATIOS]
                lines += ["", tables.markdown(tables.bodies_table(bodies[bodies["suite"] == suite.name]))]
        if len(self.improvements):
            compared = tables.markdown(tables.improvements_table(self.improvements))
            lines += ["", "## Agents against each other", "", compared]
        training = plots.training_curves({p.run: p.folder for p in plans}, folder / "training.png")
        if training is not None:
            lines += ["", "## Training"]
            lines += _picture("return during training; thin grey lines: single bodies", training)
        lines += self._agents_shown(video)
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        lines += ["", "## How it was made", "", f"{versions}; Python {platform.python_version()}.", ""]
        return "\n".join(lines)

    def _few_shot(self, suite: Suite, looks: plots.Looks, folder: Path) -> list[str]:
        """The part of a suite that trains."""
        few, reached = (f[f["suite"] == suite.name] for f in (self.few_shot, self.reached))
        told = (
            "Return after so many steps of the body's own training, begun from the policy and, by the same "
            "agent with fresh parameters, from nothing. Intervals of a body are over its runs, or of one run "
            "over its episodes; those of a mean are over the bodies, of the difference over the bodies' "
            "differences."
        )
        lines = [told, "", tables.markdown(tables.few_shot_table(few))]
        lines += ["", "Steps of that training, interpolated, after which the return is that of a level:", ""]
        lines += [tables.markdown(tables.reached_table(reached))]
        curves = plots.few_shot(few, looks, folder / f"{suite.name}.png")
        return lines + _picture("return against the steps of a body's own training", curves)

    def _how_to_read(self) -> str:
        runs, parts = self.agents["runs"], []
        if (runs > 1).any():
            parts.append("of several training runs: over the runs' means")
        if (runs == 1).any():
            parts.append("of a single run: over its episodes, which say nothing of other training seeds")
        text = (
            f"Policies act deterministically; equal episodes have equal starts (seed {self.seed}). ± is the "
            f"standard deviation of episodes, brackets are 95 % intervals ({'; '.join(parts)}). *IQM* is the "
            "mean of the middle half of runs and bodies. *Change* is the mean difference to the first "
            "condition of the suite in the same episodes, *kept* the share of its return."
        )
        if self.bodies["recovered"].notna().any():
            text += (
                f" *Recovery*: steps until the mean reward of the next {WINDOW} steps is again {SHARE:.0%} "
                f"of that of the {BEFORE} steps before, the median over the episodes that come so far, and "
                "their share."
            )
        if self.bodies["normalized"].notna().any():
            text += (
                " *Normalised*: 0 for random actions, 1 for an ordinary network trained on that body alone."
            )
        elif any(plan.kind == "limbs" for plan in self.plans):
            text += " There are no specialists of these bodies to normalise by."
        return text

    def _agents_shown(self, video: bool) -> list[str]:
        """Pictures of attention or messages and links to videos; of runs of one kind, of the first."""
        lines: list[str] = []
        for plan in {plan.agent: plan for plan in reversed(self.plans)}.values():
            agent, environment = load_policy(plan.folder), plan.trials[0].environment
            task, shown = task_set_of(environment).for_evaluation(), []
            body = (task.unseen or task.seen)[0]
            is_one_limb = task.kind == "limbs" and task.morphology(body).n_limbs == 1
            if looks_inside(agent.policy) and not is_one_limb:
                shuffled = with_changes(environment, {"senses": {"shuffle": INSIDE_STEPS // 2}})
                own = task_set_of(shuffled).for_evaluation() if "senses" in environment else task
                path = self.output / "plots" / f"inside_{file_name(plan.run)}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                inside_figure(record_inside(agent, own, body, self.seed, INSIDE_STEPS)).savefig(path)
                what = f"what {plan.agent} attends to, and what its limbs tell each other, on {body}"
                shown += [*_picture(what, path)[1:], ""]
            filmed = to_film(task) if video else None
            name = f"{file_name(plan.run)}_{file_name(body)}.mp4"
            if filmed and film_episode(agent, filmed, body, self.output / "videos" / name, self.seed):
                shown += [f"Video of {body}: [{name}](videos/{name})", ""]
            if shown:
                lines = ["", f"### {plan.run}", "", *shown, *lines]
        return ["", "## Inside the agents", *lines] if lines else []


def _picture(text: str, path: Path | None) -> list[str]:
    return [] if path is None else ["", f"![{text}](plots/{path.name})"]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON has them: None for NaN and for what is infinite."""
    known = frame.replace([np.inf, -np.inf], np.nan).astype(object)
    return known.where(known.notna(), None).to_dict("records")


def write_html(markdown: str, path: Path, title: str) -> None:
    """Write a page of Markdown that needs no other file: pictures beside it are inside, videos are linked."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")  # names of bodies may be a stranger's
    tokens = parser.parse(markdown)
    for child in (child for token in tokens for child in token.children or []):
        source = str(child.attrs.get("src", ""))
        if child.type == "image" and source.endswith(".png"):
            check_inside(path.parent / source, path.parent)
            data = base64.b64encode((path.parent / source).read_bytes()).decode()
            child.attrs["src"] = f"data:image/png;base64,{data}"
    body = parser.renderer.render(tokens, parser.options, {})
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n"
    )
    path.write_text(page, encoding="utf-8")
