"""Statistics of returns: episodes as a table, what is made of it by body and by agent, and its intervals.

Across training seeds: interquartile mean with a stratified bootstrap interval, probability of improvement
and performance profiles after Agarwal, Schwarzer, Castro, Courville and Bellemare, "Deep reinforcement
learning at the edge of the statistical precipice", NeurIPS 2021, sections 4 and 5.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from .episodes import NEVER
from .plan import AgentPlan, Chunk
from .suites import OTHER_BODIES, STARTS, Suite

RESAMPLES, SEED = 2000, 0  # of the bootstrap, which has a seed so that a report can be made again
ENDS = 0.025, 0.975  # of intervals of 95 %
OF_A_BODY = ["agent", "run", "suite", "condition", "body", "seen"]
OF_AN_AGENT = ["agent", "suite", "condition"]
OPTIONAL = ("change", "change_low", "change_high", "recovered", "recovery_steps")  # NaN of some conditions


class Estimate(NamedTuple):
    """A value with the ends of its 95 % interval; NaN where it cannot be computed."""

    value: Any
    low: Any
    high: Any

    def columns(self, name: str) -> dict[str, float]:
        """``name``, ``name_low`` and ``name_high``, for a row of a table."""
        return {name: float(self.value), f"{name}_low": float(self.low), f"{name}_high": float(self.high)}


def half_width(values: Sequence[float]) -> float:
    """Half width of the 95 % interval of Student's t of the mean of two or more values."""
    return float(stats.sem(values) * stats.t.ppf(ENDS[1], len(values) - 1))


def mean_of(values: np.ndarray) -> Estimate:
    """Mean of values (n,) with the interval of Student's t; of one value, without."""
    mean, half = float(np.mean(values)), half_width(values) if len(values) > 1 else np.nan
    return Estimate(mean, mean - half, mean + half)


def interquartile_mean(scores: np.ndarray) -> Estimate:
    """Mean of the middle half of scores (runs, tasks), bootstrapped over runs; of one run, without interval.

    Runs are drawn as wholes. The publication draws the runs of each task by themselves, as each task had
    runs of its own; here one policy does all tasks, and to draw them apart would make intervals too narrow.
    """
    return _over_runs(lambda drawn: stats.trim_mean(_flat(drawn), 0.25, axis=-1), scores)


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> Estimate:
    """How probable it is that a run of X (runs, tasks) returns more than one of Y, a mean over the tasks."""

    def statistic(own: np.ndarray, others: np.ndarray) -> np.ndarray:
        a, b = own[..., :, None, :], others[..., None, :, :]  # (..., runs, other runs, tasks)
        return ((a > b) + 0.5 * (a == b)).mean((-3, -2, -1))

    return _over_runs(statistic, x, y)


def profile(scores: np.ndarray, thresholds: np.ndarray) -> Estimate:
    """Shares (T,) of the scores (runs, tasks) above each of T thresholds, bootstrapped over runs."""
    return _over_runs(lambda drawn: (_flat(drawn)[..., None] > thresholds).mean(-2), scores)


def _flat(scores: np.ndarray) -> np.ndarray:
    """Runs and tasks in one dimension, the last."""
    return scores.reshape(*scores.shape[:-2], -1)


def _over_runs(statistic: Callable[..., np.ndarray], *groups: np.ndarray) -> Estimate:
    """A statistic of groups of scores (runs, tasks), with the runs of each group drawn anew."""
    value = statistic(*groups)
    if min(map(len, groups)) < 2:
        return Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    rng = np.random.default_rng(SEED)
    drawn = [group[rng.integers(0, len(group), (RESAMPLES, len(group)))] for group in groups]
    return Estimate(value, *np.quantile(statistic(*drawn), ENDS, axis=0))


def paired(statistic: Callable[..., np.ndarray], *groups: np.ndarray) -> Estimate:
    """A statistic of groups of returns (runs, bodies) on the same bodies, bootstrapped over runs and bodies.

    A resample draws bodies, the same for every group, so that what makes one body faster than another widens
    no interval. Runs are drawn as wholes, alike in groups with equally many (of the same training seeds); a
    single one stays. Episodes of one body from the same starts may stand where bodies do. The quantiles are
    those of the expanded percentile interval (Hesterberg, "What teachers should know about the bootstrap",
    2015, section 4.3): the plain one is too narrow for few bodies.

    Args:
        statistic: takes the groups as (..., runs, bodies) and gives (...).
        groups: each (runs, bodies), with as many bodies.
    """
    value, n_bodies = statistic(*groups), groups[0].shape[1]
    n = max(n_bodies, *map(len, groups))
    if n < 2:
        return Estimate(value, np.nan, np.nan)
    rng = np.random.default_rng(SEED)
    bodies = rng.integers(0, n_bodies, (RESAMPLES, 1, n_bodies))
    runs = {count: rng.integers(0, count, (RESAMPLES, count, 1)) for count in sorted({*map(len, groups)})}
    drawn = [group[runs[len(group)], bodies] for group in groups]
    low = stats.norm.cdf(stats.t.ppf(ENDS[0], n - 1) * np.sqrt(n / (n - 1)))
    return Estimate(value, *np.quantile(statistic(*drawn), (low, 1 - low), axis=0))


def ratio_of_sums(returns: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Summed over bodies, what returns (..., runs, bodies) are of others; NaN where these sum to 0 or less.

    A body with a return near zero or below has little weight in it.
    """
    return _over_positive(returns.mean(-2).sum(-1), others.mean(-2).sum(-1))


def mean_of_ratios(returns: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mean over bodies of each one's own ratio; NaN where one of the others is not above zero."""
    return _over_positive(returns.mean(-2), others.mean(-2)).mean(-1)


def _over_positive(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The quotients; NaN where the denominator is not above zero."""
    return np.divide(own, other, out=np.full_like(own, np.nan), where=other > 0)


def mean_difference(returns: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mean over bodies of returns (..., runs, bodies) less others."""
    return returns.mean((-2, -1)) - others.mean((-2, -1))


def episodes_of(plans: Sequence[AgentPlan], record: Callable[[Chunk], dict[str, Any]]) -> pd.DataFrame:
    """All episodes, one a row, of what ``record`` gives for each chunk.

    Columns: ``agent``, ``run``, ``suite``, ``condition``, ``body``, ``seen``, ``episode`` (its number: equal
    numbers have equal starts), ``return``, ``length``, ``recovery`` (steps, -1 for never, NaN where nothing
    happened), ``random``, the return of random actions from the same start on the same body, undisturbed, and
    ``joint``, that of a policy that saw all bodies.
    """
    parts, tried = [], [(plan, trial) for plan in plans for trial in plan.trials]
    for plan, trial in tried:
        baseline, joint = (
            {(c.first, body): record(c)[body]["returns"] for c in chunks for body in c.bodies}
            for chunks in (trial.baseline, trial.joint)
        )
        for chunk in trial.chunks:
            nothing = [np.nan] * chunk.episodes
            for body, found in record(chunk).items():
                columns = {
                    "agent": plan.agent,
                    "run": plan.run,
                    "suite": trial.suite,
                    "condition": trial.condition,
                    "body": body,
                    "seen": body in plan.seen,
                    "episode": range(chunk.first, chunk.first + chunk.episodes),
                    "return": found["returns"],
                    "length": found["lengths"],
                    "recovery": np.array(found.get("recovery", nothing), float),
                    "random": baseline.get((chunk.first, body), nothing),
                    "joint": joint.get((chunk.first, body), nothing),
                }
                parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def by_body(
    episodes: pd.DataFrame, suites: Sequence[Suite], specialists: Mapping[tuple[str, str], float]
) -> pd.DataFrame:
    """One row for each run, condition and body of `episodes_of`.

    ``change`` is the mean difference to the suite's first condition in the same episodes; intervals are
    those of Student's t over episodes. ``normalized`` is on the scale from random actions, 0, to a
    specialist, 1, whose return ``specialists`` has by run and body.
    """
    references = {suite.name: suite.conditions[0].name for suite in suites}
    undisturbed = episodes[episodes["condition"] == episodes["suite"].map(references)]
    keys = ["run", "suite", "body", "episode"]
    first = undisturbed[[*keys, "return"]].rename(columns={"return": "reference"})
    rows = []
    for key, group in episodes.merge(first, on=keys, how="left").groupby(OF_A_BODY, sort=False):
        row = dict(zip(OF_A_BODY, key, strict=True))
        returns, random = group["return"].to_numpy(), float(group["random"].mean())
        mean, low, high = mean_of(returns)
        specialist = specialists.get((row["run"], row["body"]), np.nan)
        row |= {
            "episodes": len(group),
            "mean": mean,
            "deviation": float(returns.std(ddof=1)) if len(returns) > 1 else np.nan,
            "low": low,
            "high": high,
            "worst_tenth": float(np.quantile(returns, 0.1)),
            "length": float(group["length"].mean()),
            "random": random,
            "specialist": specialist,
            "joint": float(group["joint"].mean()),
            "normalized": float(np.divide(mean - random, specialist - random)),
            **dict.fromkeys(OPTIONAL, np.nan),
        }
        if row["condition"] != references[row["suite"]] and group["reference"].notna().all():
            row |= mean_of((group["return"] - group["reference"]).to_numpy()).columns("change")
        recovery = group["recovery"].dropna()
        if len(recovery):
            came = recovery[recovery != NEVER]
            row |= {"recovered": len(came) / len(recovery), "recovery_steps": float(came.median())}
        rows.append(row)
    return pd.DataFrame(rows)


def by_agent(bodies: pd.DataFrame, episodes: pd.DataFrame) -> pd.DataFrame:
    """One row for each kind of agent and condition, over its runs and bodies.

    With several runs, intervals say how another training seed would do: Student's t over the runs' means, for
    the interquartile mean bootstrapped. With one run they are of its episodes alone, and ``over`` says so.
    """
    rows = []
    # Agents stand below each other under each condition, in the order of the suites.
    for (suite, condition), rivals in bodies.groupby(["suite", "condition"], sort=False):
        for agent, group in rivals.groupby("agent", sort=False):
            runs, means = group["run"].nunique(), group.groupby("body")["mean"].mean()
            row = {"agent": agent, "suite": suite, "condition": condition, "runs": runs}
            row |= {"bodies": len(means), "over": "runs" if runs > 1 else "episodes"}
            row |= _over_bodies(group, "mean", "low", "high")
            iqm = interquartile_mean(_matrix(group, "mean")).columns("iqm")
            row |= iqm if runs > 1 else {"iqm": iqm["iqm"]}
            own = episodes[(episodes[OF_AN_AGENT] == [agent, suite, condition]).all(axis=1)]
            row["deviation"] = float(own["return"].std(ddof=1)) if len(own) > 1 else np.nan
            row |= {"episodes": len(own), "worst_body": means.idxmin(), "worst": float(means.min())}
            row["random"] = float(group["random"].mean())
            if group["change"].notna().all():
                row |= _over_bodies(group, "change", "change_low", "change_high")
                before = group["mean"].mean() - row["change"]
                row["kept"] = float(group["mean"].mean() / before) if before > 0 else np.nan
            if group["normalized"].notna().all():
                row |= interquartile_mean(_matrix(group, "normalized")).columns("normalized")
            if group["recovered"].notna().any():
                row["recovered"] = float(group["recovered"].mean())
                row["recovery_steps"] = float(group["recovery_steps"].median())
            rows.append(row)
    return pd.DataFrame(rows)


def _over_bodies(group: pd.DataFrame, name: str, low: str, high: str) -> dict[str, float]:
    """Mean over bodies: over the runs' means, or of one run, whose episodes are independent of each other."""
    if group["run"].nunique() > 1:
        return mean_of(_matrix(group, name).mean(1)).columns(name)
    half = float(np.sqrt(np.square((group[high] - group[low]) / 2).sum(skipna=False)) / len(group))
    value = group[name].mean()
    return Estimate(value, value - half, value + half).columns(name)


def improvements(bodies: pd.DataFrame) -> pd.DataFrame:
    """For each pair of agents and each suite, how probable it is that a run of one beats one of the other.

    Conditions and bodies count alike. Of agents with two runs or more; empty where there are no two.
    """
    rows, counts = [], bodies.groupby("agent", sort=False)["run"].nunique()
    for suite, group in bodies.groupby("suite", sort=False):
        for pair in itertools.combinations(counts.index[counts > 1], 2):
            own, other = (
                group[group["agent"] == agent].pivot_table("mean", "run", ["condition", "body"], sort=False)
                for agent in pair
            )
            shared = own.columns.intersection(other.columns)
            if len(shared):
                found = probability_of_improvement(own[shared].to_numpy(), other[shared].to_numpy())
                row = {"suite": suite, "agent": pair[0], "than": pair[1]}
                rows.append(row | found.columns("probability"))
    return pd.DataFrame(rows)


def gaps(bodies: pd.DataFrame) -> pd.DataFrame:
    """Of each agent, mean returns (and normalised ones) of seen and unseen bodies and their difference."""
    rows = []
    for agent, group in bodies[bodies["suite"] == OTHER_BODIES].groupby("agent", sort=False):
        for measure, name in (("mean", "return"), ("normalized", "normalised")):
            seen, unseen = (group.loc[group["seen"] == side, measure].mean() for side in (True, False))
            if not np.isnan(seen - unseen):
                row = {"agent": agent, "measure": name, "seen": seen, "unseen": unseen}
                rows.append(row | {"gap": seen - unseen})
    return pd.DataFrame(rows)


def ratios(bodies: pd.DataFrame) -> pd.DataFrame:
    """Of each agent, what seen and unseen bodies return beside who was trained on them.

    One row for each agent, side (``seen`` or ``unseen``) and ``of``: ``specialist``, or ``joint``, a policy
    that saw all of them. ``ratio`` of sums with the ends of its paired interval, the ``mean_of_ratios``, and
    how many ``bodies``. Runs that held out other bodies are as one run that held out all.
    """
    rows, own = [], bodies[bodies["suite"] == OTHER_BODIES]
    for (agent, seen), group in own.groupby(["agent", "seen"], sort=False):
        for of in ("specialist", "joint"):
            known = group[group[of].notna()]
            table = known.pivot_table("mean", "run", "body", sort=False)
            returns = table.to_numpy() if table.notna().all(axis=None) else table.mean().to_numpy()[None]
            others = known.groupby("body", sort=False)[of].mean()[table.columns].to_numpy()[None]
            if table.size:
                row = {"agent": agent, "side": "seen" if seen else "unseen", "of": of}
                row["bodies"] = table.shape[1]
                row |= paired(ratio_of_sums, returns, others).columns("ratio")
                rows.append(row | {"mean_of_ratios": float(mean_of_ratios(returns, others))})
    return pd.DataFrame(rows)


def few_shot(bodies: pd.DataFrame, suites: Sequence[Suite]) -> pd.DataFrame:
    """What each body returns after each number of steps of its own training, and means over the bodies.

    Of suites that train, one row for each agent, body and number ``after``: mean returns ``from_policy`` and
    ``from_nothing`` and their ``difference``, each with ``_low`` and ``_high``, and ``specialist``.
    Intervals of a body are over its runs, or of one run over its episodes; those of a mean (``body`` is None)
    are Student's t over the bodies, of the difference over the bodies' differences. ``steps_from_policy`` and
    ``steps_from_nothing`` are those of whole rollouts.
    """
    rows: list[dict[str, Any]] = []
    for suite in suites:
        of = {c.name: c.training for c in suite.conditions if c.training}
        own = bodies[(bodies["suite"] == suite.name) & bodies["condition"].isin(of)]
        own = own.assign(
            after=own["condition"].map({name: t.after for name, t in of.items()}),
            start=own["condition"].map({name: t.start for name, t in of.items()}),
        )
        steps = {(t.start, t.after): t.steps for t in of.values()}
        for (agent, after), group in own.groupby(["agent", "after"], sort=False):
            common = {"suite": suite.name, "agent": agent, "after": after}
            common |= {f"steps_{start}": steps[start, after] for start in STARTS}
            each = [
                {**common, "body": body, "seen": seen, "bodies": 1, "specialist": part["specialist"].mean()}
                | _both(part.groupby("start"))
                for (body, seen), part in group.groupby(["body", "seen"], sort=False)
            ]
            rows += each
            if len(each) > 1:
                mean = {**common, "body": None, "seen": None, "bodies": len(each)}
                mean["specialist"] = float(np.mean([row["specialist"] for row in each]))
                for name in (*STARTS, "difference"):
                    mean |= mean_of(np.array([row[name] for row in each])).columns(name)
                rows.append(mean)
    return pd.DataFrame(rows)


def _both(starts: Any) -> dict[str, float]:
    """A body's returns from both starts, and their difference."""
    found: dict[str, float] = {}
    for start, part in starts:
        part = part.drop_duplicates(["mean", "low", "high"])  # runs share what begins from nothing
        one = Estimate(*part.iloc[0][["mean", "low", "high"]])
        found |= (one if len(part) == 1 else mean_of(part["mean"].to_numpy())).columns(start)
    first, second = STARTS
    return found | {"difference": found[first] - found[second]}


def steps_to_reach(steps: Sequence[float], returns: Sequence[float], level: float) -> float:
    """Steps at which a curve first comes to a level, interpolated; NaN: it does not, or there is no level."""
    for i, value in enumerate(returns):
        if value >= level:
            if i == 0:
                return float(steps[0])
            share = (level - returns[i - 1]) / (value - returns[i - 1])
            return float(steps[i - 1] + share * (steps[i] - steps[i - 1]))
    return np.nan


def reached(few: pd.DataFrame) -> pd.DataFrame:
    """Of each curve of `few_shot`, the steps that come to levels.

    ``level`` is ``specialist``, or ``from_nothing``, what training from nothing has at the end; ``to`` its
    return; ``from_policy`` and ``from_nothing`` the steps of the two, NaN for more than ``most``.
    """
    rows = []
    for (suite, agent, body), curve in few.groupby(["suite", "agent", "body"], sort=False, dropna=False):
        curve = curve.sort_values("after")
        levels = {"specialist": curve["specialist"].iloc[0], "from_nothing": curve["from_nothing"].iloc[-1]}
        for level, to in levels.items():
            if not np.isnan(to):
                row = {"suite": suite, "agent": agent, "body": None if pd.isna(body) else body}
                row |= {"level": level, "to": to, "most": curve["after"].iloc[-1]}
                for start in STARTS:
                    row[start] = steps_to_reach(curve[f"steps_{start}"].to_list(), curve[start].to_list(), to)
                rows.append(row)
    return pd.DataFrame(rows)


def _matrix(frame: pd.DataFrame, values: str) -> np.ndarray:
    """(runs, bodies), of those runs that have every body."""
    return frame.pivot_table(values, "run", "body", sort=False).dropna().to_numpy()
