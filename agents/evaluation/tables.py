"""Tables of what was evaluated, as Markdown and for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from rich.markup import escape
from rich.table import Table

from .plan import AgentPlan
from .statistics import half_width
from .suites import STARTS

# The columns of `suite_table` that a terminal has room for.
IN_THE_TERMINAL = ("condition", "agent", "return", "95 %", "normalised", "kept", "recovery", "random")


def number(value: float | None) -> str:
    """Whole from 100 on, with one digit from 10 on, with two below; a dash for what there is not."""
    if pd.isna(value):
        return "–"
    return f"{value:z.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"


def interval(row: pd.Series, name: str) -> str:
    """``value [low, high]``."""
    value, low, high = (row.get(name + end, np.nan) for end in ("", "_low", "_high"))
    return number(value) + ("" if pd.isna([value, low]).any() else f" [{number(low)}, {number(high)}]")


def markdown(frame: pd.DataFrame) -> str:
    """A table; what stands in a cell is text already. The first two columns are aligned at the left."""
    align = ["left" if i < 2 else "right" for i in range(len(frame.columns))]
    return frame.to_markdown(index=False, disable_numparse=True, colalign=align)


def terminal_table(title: str, frame: pd.DataFrame, n_left: int = 2, **options: str) -> Table:
    """The same for the terminal; means over bodies are bold."""
    table = Table(title=escape(title), **options)
    for i, name in enumerate(frame):
        table.add_column(escape(str(name)), justify="left" if i < n_left else "right", no_wrap=i < n_left)
    for row in frame.itertuples(index=False):
        is_mean = str(row[0]).startswith("mean of")
        table.add_row(*(escape(str(cell)) for cell in row), style="bold" if is_mean else None)
        if is_mean:
            table.add_section()
    return table


def _told(lines: list[dict[str, str]]) -> pd.DataFrame:
    """Lines as a table, without columns that say nothing."""
    frame = pd.DataFrame(lines).fillna("–")
    return frame[[c for c in frame if not (frame[c] == "–").all()]]


def returns_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One run's returns on each body and their means over seen and unseen ones of a family, as text."""
    lines = []
    for seen, family, group in _sides(rows):
        for row in group.to_dict("records"):
            cells = ("mean", "interval", "mean_length", "random_mean")
            lines.append([row["body"], seen, *(_whole(row[name]) for name in cells)])
        means = group["mean"].mean(), group["random_mean"].mean(skipna=False)
        lines.append(
            [f"mean of {len(group)} {family}".rstrip(), seen, _whole(means[0]), "", "", _whole(means[1])]
        )
    return pd.DataFrame(lines, columns=["body", "in training", "return", "± 95 %", "length", "random"])


def runs_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Several runs side by side: what each kind of agent returned on each body.

    A cell is the mean over runs of the same agent (each the mean over its episodes), with a 95 % interval
    of Student's t over the runs: the interval says how another training seed would do.
    """
    runs, lines = rows.groupby("agent", sort=False)["run"].nunique(), []
    for seen, family, group in _sides(rows):
        name = f"mean of {family or seen}"
        for body, part in (*group.groupby("body", sort=False), (name, group)):
            line = {"body": body, "in training": seen}
            means = part.groupby(["agent", "run"], sort=False)["mean"].mean()
            for agent, count in runs.items():
                scores = means.get(agent, [])
                cell = _whole(np.mean(scores)) if len(scores) else "-"
                spread = f" ± {half_width(scores):.0f}" if len(scores) > 1 else ""
                line[f"{agent} ({counted(count)})"] = cell + spread
            lines.append(line | {"random actions": _whole(part["random_mean"].mean(skipna=False))})
    return pd.DataFrame(lines)


def counted(runs: int) -> str:
    """``1 run``, ``2 runs``."""
    return f"{runs} {'run' if runs == 1 else 'runs'}"


def _sides(rows: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Rows of ``seen`` and of ``unseen`` bodies, each by family, where there are several, else ""."""
    sides = rows.groupby([~rows["seen"], "family"], sort=False)
    named = [("unseen" if unseen else "seen", family, group) for (unseen, family), group in sides]
    return sorted(named, key=lambda side: side[0] != "seen")


def _whole(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:z.0f}"


def agents_table(plans: Sequence[AgentPlan]) -> pd.DataFrame:
    """What was evaluated."""
    lines = []
    for plan in plans:
        training = plan.description.get("training", {})
        steps = training.get("steps")
        line = {
            "run": plan.run,
            "agent": plan.agent,
            "trained on": f"{len(plan.seen)} bodies" if plan.kind == "limbs" else ", ".join(plan.seen),
            "steps": "–" if steps is None else f"{steps:,}",
            "seed": training.get("seed", "–"),
        }
        lines.append(line)
    return pd.DataFrame(lines)


def suite_table(rows: pd.DataFrame) -> pd.DataFrame:
    """A suite's rows of `statistics.by_agent` as text."""
    several, lines = rows["agent"].nunique() > 1, []
    for _, row in rows.iterrows():
        line = {"condition": row["condition"].replace("_", " ")}
        if several:
            line["agent"] = row["agent"]
        spread = "" if np.isnan(row["deviation"]) else f" ± {number(row['deviation'])}"
        line["return"] = number(row["mean"]) + spread
        ends = row["mean_low"], row["mean_high"]
        line["95 %"] = "–" if np.isnan(ends).any() else f"[{number(ends[0])}, {number(ends[1])}]"
        line["IQM"] = interval(row, "iqm") if row["runs"] > 1 else "–"
        line["normalised"], line["change"] = interval(row, "normalized"), interval(row, "change")
        kept, recovered = row.get("kept", np.nan), row.get("recovered", np.nan)
        line["kept"] = "–" if np.isnan(kept) else f"{kept:.0%}"
        line["worst body"] = f"{row['worst_body']} {number(row['worst'])}" if row["bodies"] > 1 else "–"
        recovery = "–" if np.isnan(recovered) else f"{number(row['recovery_steps'])} ({recovered:.0%})"
        line |= {"recovery": recovery, "random": number(row["random"])}
        lines.append(line | {"runs × episodes": f"{row['runs']} × {row['episodes'] // row['runs']}"})
    return _told(lines)


def bodies_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Each body's return under each agent."""
    lines = []
    for (body, seen), group in rows.groupby(["body", "seen"], sort=False):
        line = {"body": body, "in training": "seen" if seen else "unseen"}
        for agent, own in group.groupby("agent", sort=False):
            if len(own) == 1:
                line[agent] = interval(own.iloc[0].rename({"low": "mean_low", "high": "mean_high"}), "mean")
            else:
                line[agent] = f"{number(own['mean'].mean())} ({', '.join(map(number, own['mean']))})"
        lines.append(line | {name: number(group[name].iloc[0]) for name in ("specialist", "joint", "random")})
    return _told(lines)


def few_shot_table(few: pd.DataFrame) -> pd.DataFrame:
    """Returns after each body's own training, as `statistics.few_shot` has them, body by body."""
    several, lines = few["agent"].nunique() > 1, []
    for (agent, body), curve in few.groupby(["agent", "body"], sort=False, dropna=False):
        for _, row in curve.iterrows():
            line = {
                "body": f"mean of {row['bodies']}" if pd.isna(body) else body,
                "steps": f"{row['after']:,}",
            }
            if several:
                line["agent"] = agent
            line |= {words: interval(row, start) for start, words in STARTS.items()}
            line |= {"difference": interval(row, "difference")}
            lines.append(line | {"specialist, 1 M steps": number(row["specialist"])})
    return _told(lines)


def reached_table(reached: pd.DataFrame) -> pd.DataFrame:
    """Steps that come to a level, as `statistics.reached` has them."""
    several, lines = reached["agent"].nunique() > 1, []
    levels = {"specialist": "the specialist's 1 M steps", "from_nothing": "the end from nothing"}
    for _, row in reached.iterrows():
        line = {"body": "the mean" if pd.isna(row["body"]) else row["body"]}
        if several:
            line["agent"] = row["agent"]
        line |= {"level": levels[row["level"]], "return": number(row["to"])}
        for start, words in STARTS.items():
            line[words] = f"> {row['most']:,}" if pd.isna(row[start]) else f"{row[start]:,.0f}"
        lines.append(line)
    return _told(lines)


def ratios_table(ratios: pd.DataFrame) -> pd.DataFrame:
    """Ratios of sums over bodies, and the means of the bodies' own ones."""
    lines = []
    for _, row in ratios.iterrows():
        line = {"agent": row["agent"], "what of what": f"{row['side']}/{row['of']}"}
        line |= {"bodies": row["bodies"], "ratio": interval(row, "ratio")}
        lines.append(line | {"mean of ratios": number(row["mean_of_ratios"])})
    return pd.DataFrame(lines)


def improvements_table(improvements: pd.DataFrame) -> pd.DataFrame:
    """Probabilities of improvement."""
    lines = improvements.rename(columns={"agent": "a run of", "than": "beats one of"})
    shown = [interval(row, "probability") for _, row in improvements.iterrows()]
    return lines[["suite", "a run of", "beats one of"]].assign(probability=shown)


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
