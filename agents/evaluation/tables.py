"""Tables of the report, as Markdown and for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from rich.markup import escape
from rich.table import Table

from .plan import AgentPlan


def number(value: float) -> str:
    """Whole from 100 on, with one digit from 10 on, with two below; a dash for what there is not."""
    if value is None or np.isnan(value):
        return "–"
    return f"{value:z.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"


def interval(row: pd.Series, name: str) -> str:
    """``value [low, high]``."""
    if name not in row or np.isnan(row[name]):
        return "–"
    low, high = row.get(f"{name}_low", np.nan), row.get(f"{name}_high", np.nan)
    return number(row[name]) + ("" if np.isnan(low) else f" [{number(low)}, {number(high)}]")


def agents_table(plans: Sequence[AgentPlan]) -> str:
    """What was evaluated."""
    rows = []
    for plan in plans:
        training = plan.description.get("training", {})
        steps = training.get("steps")
        rows.append(
            {
                "run": plan.run,
                "agent": plan.agent,
                "trained on": f"{len(plan.seen)} bodies" if plan.kind == "limbs" else ", ".join(plan.seen),
                "steps": "–" if steps is None else f"{steps:,}",
                "seed": training.get("seed", "–"),
            }
        )
    return markdown(pd.DataFrame(rows))


def suite_cells(rows: pd.DataFrame) -> pd.DataFrame:
    """A suite's rows of `frames.by_agent` as text; columns that say nothing are left out."""
    several = rows["agent"].nunique() > 1
    lines = []
    for _, row in rows.iterrows():
        line = {"condition": row["condition"].replace("_", " ")}
        if several:
            line["agent"] = row["agent"]
        spread = "" if np.isnan(row["deviation"]) else f" ± {number(row['deviation'])}"
        line["return"] = number(row["mean"]) + spread
        ends = row["mean_low"], row["mean_high"]
        line["95 %"] = "–" if np.isnan(ends).any() else f"[{number(ends[0])}, {number(ends[1])}]"
        line["IQM"] = interval(row, "iqm") if row["runs"] > 1 else "–"
        line["normalised"] = interval(row, "normalized") if "normalized" in row else "–"
        line["change"] = interval(row, "change") if "change" in row else "–"
        kept = row.get("kept", np.nan)
        line["kept"] = "–" if np.isnan(kept) else f"{kept:.0%}"
        line["worst body"] = f"{row['worst_body']} {number(row['worst'])}" if row["bodies"] > 1 else "–"
        line["recovery"] = _recovery(row)
        line["random"] = number(row["random"])
        line["runs × episodes"] = f"{row['runs']} × {row['episodes'] // row['runs']}"
        lines.append(line)
    frame = pd.DataFrame(lines)
    return frame[[c for c in frame if not (frame[c] == "–").all()]]


def suite_table(rows: pd.DataFrame) -> str:
    """The same as Markdown."""
    return markdown(suite_cells(rows))


def bodies_table(rows: pd.DataFrame) -> str:
    """Each body's return under each agent."""
    lines = []
    for (body, seen), group in rows.groupby(["body", "seen"], sort=False):
        line = {"body": body, "in training": "seen" if seen else "unseen"}
        for agent, own in group.groupby("agent", sort=False):
            line[agent] = _body_cell(own)
        line["specialist"] = number(group["specialist"].iloc[0])
        line["random"] = number(group["random"].iloc[0])
        lines.append(line)
    frame = pd.DataFrame(lines).fillna("–")
    return markdown(frame[[c for c in frame if not (frame[c] == "–").all()]])


def gaps_table(gaps: pd.DataFrame) -> str:
    """Seen, unseen and the gap between them."""
    if gaps.empty:
        return ""
    shown = gaps.copy()
    for column in ("seen", "unseen", "gap"):
        shown[column] = shown[column].map(number)
    return markdown(shown)


def improvements_table(improvements: pd.DataFrame) -> str:
    """Probabilities of improvement; empty where there are none."""
    if improvements.empty:
        return ""
    rows = [
        {
            "suite": row["suite"],
            "a run of": row["agent"],
            "beats one of": row["than"],
            "probability": interval(row, "probability"),
        }
        for _, row in improvements.iterrows()
    ]
    return markdown(pd.DataFrame(rows))


def left_out(plans: Sequence[AgentPlan], suite: str) -> list[str]:
    """Lines that say which conditions did not fit which runs."""
    runs: dict[tuple[str, str], list[str]] = {}
    for plan in plans:
        for trial in plan.trials:
            if trial.suite == suite and trial.why_not:
                runs.setdefault((trial.condition, trial.why_not), []).append(plan.run)
    lines = [
        f"- {condition.replace('_', ' ')}, left out for {', '.join(names)}: {why_not}"
        for (condition, why_not), names in runs.items()
    ]
    return ["", *lines] if lines else []


def markdown(frame: pd.DataFrame) -> str:
    """A table; what stands in a cell is text already."""
    align = ["left" if i < 2 else "right" for i in range(len(frame.columns))]
    return frame.to_markdown(index=False, disable_numparse=True, colalign=align)


IN_THE_TERMINAL = ("condition", "agent", "return", "95 %", "normalised", "kept", "recovery", "random")


def terminal_table(title: str, frame: pd.DataFrame) -> Table:
    """The columns of `suite_cells` that a terminal has room for."""
    frame = frame[[name for name in frame if name in IN_THE_TERMINAL]]
    table = Table(title=title, title_justify="left")
    for name in frame:
        table.add_column(str(name), justify="left" if name in ("condition", "agent") else "right")
    for row in frame.itertuples(index=False):
        table.add_row(*(escape(str(cell)) for cell in row))
    return table


def _body_cell(own: pd.DataFrame) -> str:
    if len(own) == 1:
        row = own.iloc[0].rename({"low": "mean_low", "high": "mean_high"})
        return interval(row, "mean")
    return f"{number(own['mean'].mean())} ({', '.join(number(value) for value in own['mean'])})"


def _recovery(row: pd.Series) -> str:
    share = row.get("recovered", np.nan)
    if np.isnan(share):
        return "–"
    return f"{number(row['recovery_steps'])} ({share:.0%})"
