"""Episodes as a table, and what is made of them: per body, per agent, between agents."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from .chunks import Chunk
from .conditions import Suite
from .plan import AgentPlan
from .recovery import NEVER
from .references import Specialists
from .statistics import Estimate, interquartile_mean, mean_of, normalized, probability_of_improvement

OF_A_BODY = ["agent", "run", "suite", "condition", "body", "seen"]
OF_AN_AGENT = ["agent", "suite", "condition"]


def episodes_of(plans: Sequence[AgentPlan], record: Callable[[Chunk], dict[str, Any]]) -> pd.DataFrame:
    """All episodes, one a row.

    Columns: ``agent``, ``run``, ``suite``, ``condition``, ``body``, ``seen``, ``episode`` (its number: equal
    numbers have equal starts), ``return``, ``length``, ``recovery`` (steps, -1 for never, NaN where nothing
    happened) and ``random``, the return of random actions from the same start on the same body, undisturbed.

    Args:
        plans: of all runs.
        record: gives what came of a chunk.
    """
    parts = []
    for plan in plans:
        for trial in plan.trials:
            baseline = {
                (c.first, body): record(c)[body]["returns"] for c in trial.baseline for body in c.bodies
            }
            for chunk in trial.chunks:
                found = record(chunk)
                for body in chunk.bodies:
                    n = chunk.episodes
                    columns = {
                        "agent": plan.agent,
                        "run": plan.run,
                        "suite": trial.suite,
                        "condition": trial.condition,
                        "body": body,
                        "seen": body in plan.seen,
                        "episode": range(chunk.first, chunk.first + n),
                        "return": found[body]["returns"],
                        "length": found[body]["lengths"],
                        "recovery": np.array(found[body].get("recovery", [None] * n), float),
                        "random": baseline.get((chunk.first, body), [np.nan] * n),
                    }
                    parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def by_body(episodes: pd.DataFrame, suites: Sequence[Suite], specialists: Specialists) -> pd.DataFrame:
    """One row for each run, condition and body.

    ``change`` is the mean difference to the suite's first condition in the same episodes; intervals are
    those of Student's t over episodes. ``normalized`` is on the scale from random actions to a specialist.
    """
    references = {suite.name: suite.conditions[0].name for suite in suites}
    undisturbed = episodes[episodes["condition"] == episodes["suite"].map(references)]
    keys = ["run", "suite", "body", "episode"]
    paired = episodes.merge(
        undisturbed[[*keys, "return"]].rename(columns={"return": "reference"}), on=keys, how="left"
    )
    rows = []
    for key, group in paired.groupby(OF_A_BODY, sort=False):
        row = dict(zip(OF_A_BODY, key, strict=True))
        returns = group["return"].to_numpy()
        mean = mean_of(returns)
        row |= {
            "episodes": len(group),
            "mean": mean.value,
            "deviation": float(returns.std(ddof=1)) if len(returns) > 1 else np.nan,
            "low": mean.low,
            "high": mean.high,
            "worst_tenth": float(np.quantile(returns, 0.1)),
            "length": float(group["length"].mean()),
            "random": float(group["random"].mean()),
            "specialist": specialists.of(row["run"], row["body"]),
        }
        row["normalized"] = float(normalized(row["mean"], row["random"], row["specialist"]))
        if row["condition"] != references[row["suite"]] and group["reference"].notna().all():
            change = mean_of((group["return"] - group["reference"]).to_numpy())
            row |= {"change": change.value, "change_low": change.low, "change_high": change.high}
        recovery = group["recovery"].dropna()
        if len(recovery):
            came = recovery[recovery != NEVER]
            row["recovered"] = len(came) / len(recovery)
            row["recovery_steps"] = float(came.median()) if len(came) else np.nan
        rows.append(row)
    frame = pd.DataFrame(rows)
    for column in ("change", "change_low", "change_high", "recovered", "recovery_steps"):
        if column not in frame:
            frame[column] = np.nan
    return frame


def by_agent(bodies: pd.DataFrame, episodes: pd.DataFrame) -> pd.DataFrame:
    """One row for each kind of agent and condition, over its runs and bodies.

    With several runs, intervals say how another training seed would do: Student's t over the runs' means, for
    the interquartile mean bootstrapped. With one run they are of its episodes alone, and ``over`` says so.
    """
    rows = []
    for key, group in bodies.groupby(OF_AN_AGENT, sort=False):
        row = dict(zip(OF_AN_AGENT, key, strict=True))
        runs = group["run"].nunique()
        scores = _matrix(group, "mean")
        worst = group.groupby("body")["mean"].mean()
        row |= {"runs": runs, "bodies": group["body"].nunique(), "over": "runs" if runs > 1 else "episodes"}
        own = episodes[(episodes[OF_AN_AGENT] == list(key)).all(axis=1)]
        if runs > 1:
            _put(row, "mean", mean_of(scores.mean(1)))
            _put(row, "iqm", interquartile_mean(scores))
        else:
            _put(row, "mean", _together(group, "mean", "low", "high"))
            row["iqm"] = interquartile_mean(scores).value
        row["deviation"] = float(own["return"].std(ddof=1)) if len(own) > 1 else np.nan
        row["episodes"] = len(own)
        row |= {"worst_body": worst.idxmin(), "worst": float(worst.min())}
        row["random"] = float(group["random"].mean())
        if group["change"].notna().all():
            row |= _change(group, runs)
        if group["normalized"].notna().all():
            _put(row, "normalized", interquartile_mean(_matrix(group, "normalized")))
        if group["recovered"].notna().any():
            row["recovered"] = float(group["recovered"].mean())
            row["recovery_steps"] = float(group["recovery_steps"].median())
        rows.append(row)
    # Agents stand below each other under each condition, in the order of the suites.
    order = {
        key: i for i, key in enumerate(dict.fromkeys(zip(bodies["suite"], bodies["condition"], strict=True)))
    }
    return pd.DataFrame(sorted(rows, key=lambda row: order[row["suite"], row["condition"]]))


def improvements(bodies: pd.DataFrame) -> pd.DataFrame:
    """For each pair of agents and each suite, how probable it is that a run of one beats one of the other.

    Conditions and bodies count alike. Of agents with two runs or more; empty where there are no two.
    """
    rows = []
    counts = bodies.groupby("agent")["run"].nunique()
    several = [agent for agent in dict.fromkeys(bodies["agent"]) if counts[agent] > 1]
    for suite, group in bodies.groupby("suite", sort=False):
        for one, other in itertools.combinations(several, 2):
            found = [_tasks(group[group["agent"] == agent]) for agent in (one, other)]
            shared = found[0].columns.intersection(found[1].columns)
            if len(shared) == 0:
                continue
            estimate = probability_of_improvement(*(frame[shared].to_numpy() for frame in found))
            row: dict[str, Any] = {"suite": suite, "agent": one, "than": other}
            _put(row, "probability", estimate)
            rows.append(row)
    return pd.DataFrame(rows)


def gaps(bodies: pd.DataFrame) -> pd.DataFrame:
    """Of each agent, mean returns (and normalised ones) of seen and unseen bodies and their difference."""
    rows = []
    chosen = bodies[bodies["suite"] == "unseen_morphology"]
    for agent, group in chosen.groupby("agent", sort=False):
        sides = {side: group[group["seen"] == side] for side in (True, False)}
        if any(side.empty for side in sides.values()):
            continue
        for measure in ("mean", "normalized"):
            values = {side: frame[measure].mean() for side, frame in sides.items()}
            if not any(np.isnan(value) for value in values.values()):
                row = {"agent": agent, "measure": "return" if measure == "mean" else "normalised"}
                rows.append(row | {"seen": values[True], "unseen": values[False]})
                rows[-1]["gap"] = values[True] - values[False]
    return pd.DataFrame(rows)


def _change(group: pd.DataFrame, runs: int) -> dict[str, float]:
    row: dict[str, float] = {}
    if runs > 1:
        _put(row, "change", mean_of(_matrix(group, "change").mean(1)))
    else:
        _put(row, "change", _together(group, "change", "change_low", "change_high"))
    before = group["mean"].mean() - row["change"]
    row["kept"] = float(group["mean"].mean() / before) if before > 0 else np.nan
    return row


def _together(group: pd.DataFrame, name: str, low: str, high: str) -> Estimate:
    """Mean over bodies of one run, whose episodes have nothing to do with each other."""
    half = float(np.sqrt(np.square((group[high] - group[low]) / 2).sum(skipna=False)) / len(group))
    value = float(group[name].mean())
    return Estimate(value, value - half, value + half)


def _put(row: dict[str, Any], name: str, estimate: Estimate) -> None:
    row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _matrix(frame: pd.DataFrame, values: str) -> np.ndarray:
    """(runs, bodies), of those runs that have every body."""
    return frame.pivot_table(values, "run", "body", sort=False).dropna().to_numpy()


def _tasks(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.pivot_table("mean", "run", ["condition", "body"], sort=False)
