"""The report's pictures: degradation curves, bodies, profiles, heat map, training curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .statistics import profile
from .suites import OTHER_BODIES, STARTS, Suite, Sweep

# Okabe and Ito's colours, told apart by colour-blind readers, and markers that say the same again.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GREY = "#767676"
COLUMNS = 3

Looks = Mapping[str, Mapping[str, str]]
"""``color`` and ``marker`` of each agent, the same in every picture."""


def looks_of(agents: Sequence[str]) -> Looks:
    """A colour and a marker for each agent."""
    looks = [{"color": color, "marker": marker} for color, marker in zip(COLORS, MARKERS, strict=True)]
    return {name: looks[i % len(looks)] for i, name in enumerate(dict.fromkeys(agents))}


def degradation(suite: Suite, agents: pd.DataFrame, looks: Looks, path: Path) -> Path | None:
    """Mean return along every series of a suite, with bands of 95 %; None where there is no series."""
    rows = agents[agents["suite"] == suite.name]
    tried = [condition for condition in suite.conditions if condition.name in set(rows["condition"])]
    sweeps = [s for s in suite.sweeps.values() if any(condition.sweep == s.name for condition in tried)]
    if not sweeps:
        return None
    # All means and bands are seen, but for the bands of two runs, which would leave nothing else to see.
    known = rows[rows["runs"] != 2]
    values = pd.concat([rows["mean"], rows["random"], known["mean_low"], known["mean_high"]])
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * max(high - low, 1e-9)
    figure, grid = _grid(len(sweeps), 4.6, 3.5, 0.5)
    for axes, sweep in zip(grid, sweeps, strict=True):
        for agent, own in rows.groupby("agent", sort=False):
            _curve(axes, suite, sweep, own, str(agent), looks)
        if rows["random"].notna().all():
            axes.axhline(rows["random"].mean(), color=GREY, ls=":", lw=1.2, label="random actions")
        if sweep.reference_at is None:
            name = suite.conditions[0].name.replace("_", " ")
            axes.plot([], [], color=GREY, ls="--", lw=1.0, label=f"dashed: {name}")
        ticks = {condition.x for condition in tried if condition.sweep == sweep.name}
        ticks = sorted(map(float, ticks | ({sweep.reference_at} - {None})))
        if sweep.logarithmic:
            axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set(ylim=(low - margin, high + margin), xlabel=sweep.label)
    return _save(figure, path, figure.axes[0])


def _curve(axes: Axes, suite: Suite, sweep: Sweep, rows: pd.DataFrame, agent: str, looks: Looks) -> None:
    places = {c.name: c.x for c in suite.conditions if c.sweep == sweep.name}
    own = rows[rows["condition"].isin(places)].assign(x=lambda f: f["condition"].map(places))
    first = rows[rows["condition"] == suite.conditions[0].name]
    if sweep.reference_at is not None:
        own = pd.concat([own, first.assign(x=sweep.reference_at)])
    own = own.sort_values("x")
    x, color = own["x"].astype(float), looks[agent]["color"]
    axes.plot(x, own["mean"], ms=5, lw=1.8, label=agent, **looks[agent])
    axes.fill_between(x, own["mean_low"], own["mean_high"], color=color, alpha=0.2, lw=0)
    if sweep.reference_at is None and len(first):
        axes.axhline(float(first["mean"].iloc[0]), color=color, ls="--", lw=1.0)


def bodies_as_dots(bodies: pd.DataFrame, looks: Looks, path: Path) -> Path | None:
    """Mean return on each seen and unseen body with its interval; None where there are no several bodies."""
    rows = bodies[bodies["suite"] == OTHER_BODIES]
    # From the bottom upwards: unseen bodies, then seen ones, each in the family's order (10 links after 9).
    order = rows.drop_duplicates("body")[::-1].sort_values("seen", kind="stable").reset_index()
    if not 2 <= len(order) <= 40:  # of endless families there are too many to name
        return None
    heights = {body: i for i, body in enumerate(order["body"])}
    agents = rows["agent"].unique()
    figure, axes = _figure(8.4, 1.4 + len(order) * (0.24 + 0.1 * len(agents)))
    for i, agent in enumerate(agents):
        shift, look = (i - (len(agents) - 1) / 2) * 0.7 / max(len(agents), 2), looks[agent]
        for j, (body, group) in enumerate(rows[rows["agent"] == agent].groupby("body")):
            y, means = heights[body] - shift, group["mean"]
            # Of one run the interval over its episodes; of several the range of their means.
            ends = group[["low", "high"]].iloc[0] if len(group) == 1 else (means.min(), means.max())
            axes.plot(ends, [y, y], color=look["color"], lw=1.8)
            axes.plot(means.mean(), y, ls="", ms=6, label=None if j else agent, **look)
    for column, marker, label in (("random", "|", "random actions"), ("specialist", "d", "specialist")):
        if order[column].notna().any():
            axes.plot(order[column], order.index, marker, color=GREY, ms=7, label=label)
    unseen = int((~order["seen"]).sum())
    if 0 < unseen < len(order):
        axes.axhspan(-0.5, unseen - 0.5, color="#EFEFEF", zorder=0)
    names = [f"{row.body} ({'seen' if row.seen else 'unseen'})" for row in order.itertuples()]
    axes.set_yticks(order.index, names)
    several = rows.groupby(["agent", "body"]).size().max() > 1
    lines = "from the lowest run to the highest" if several else "95 % over episodes"
    axes.set(ylim=(-0.5, len(order) - 0.5), xlabel=f"return of an episode; lines: {lines}")
    return _save(figure, path, axes)


def profiles(bodies: pd.DataFrame, looks: Looks, path: Path) -> Path | None:
    """Share of runs and bodies above each score, per agent; None for fewer than three of them."""
    rows = bodies[bodies["suite"] == OTHER_BODIES]
    if rows["body"].nunique() < 3:
        return None
    measure = "normalized" if rows["normalized"].notna().all() else "mean"
    low, high = float(rows[measure].min()), float(rows[measure].max())
    thresholds = np.linspace(min(0.0, low), high * 1.02, 60)
    figure, axes = _figure(6.2, 4.0)
    for agent, own in rows.groupby("agent", sort=False):
        share = profile(own.pivot_table(measure, "run", "body").dropna().to_numpy(), thresholds)
        color = looks[str(agent)]["color"]
        axes.plot(thresholds, share.value, color=color, lw=1.8, label=agent)
        axes.fill_between(thresholds, share.low, share.high, color=color, alpha=0.2, lw=0)
    scale = "score τ (0: random actions, 1: specialist)" if measure == "normalized" else "return τ"
    axes.set(xlabel=scale, ylabel="share of runs and bodies above τ", ylim=(0, 1.02))
    return _save(figure, path, axes)


def few_shot(few: pd.DataFrame, looks: Looks, path: Path) -> Path | None:
    """Return against the steps of a body's own training: the mean over bodies first, then each of them.

    None where nothing was trained, or of more bodies than can be shown.
    """
    curves = sorted(few.groupby("body", sort=False, dropna=False), key=lambda pair: not pd.isna(pair[0]))
    if not 1 <= len(curves) <= 40:
        return None
    figure, grid = _grid(len(curves), 4.6, 3.4, 0.5)
    steps = sorted(set(few["after"]))
    for axes, (body, rows) in zip(grid, curves, strict=True):
        for agent, own in rows.sort_values("after").groupby("agent", sort=False):
            look = looks[str(agent)]
            for start, line, fill in (("from_policy", "-", "full"), ("from_nothing", "--", "none")):
                label, x = f"{agent}, {STARTS[start]}", own[f"steps_{start}"]
                axes.plot(x, own[start], ls=line, ms=5, lw=1.8, fillstyle=fill, label=label, **look)
                if not pd.isna(body) or len(curves) > 3:  # over two bodies it would leave nothing else to see
                    ends = own[f"{start}_low"], own[f"{start}_high"]
                    axes.fill_between(x, *ends, color=look["color"], alpha=0.15, lw=0)
        if rows["specialist"].notna().all():
            level = rows["specialist"].mean()
            axes.axhline(level, color=GREY, ls=":", lw=1.2, label="specialist, 1 M steps")
        first = next((n for n in steps if n), 1)
        axes.set_xscale("symlog", linthresh=first, linscale=0.5)
        axes.set_xlim(-0.2 * first, max(1.2 * steps[-1], first))
        axes.set_xticks(steps, [f"{n / 1000:g} k" if n else "0" for n in steps])
        axes.minorticks_off()
        axes.set_xlabel("steps of the body's own training")
        axes.set_title(f"mean of {len(curves) - 1} bodies" if pd.isna(body) else str(body), fontsize=9)
    return _save(figure, path, grid[0])


def heat_map(agents: pd.DataFrame, suites: Sequence[Suite], path: Path) -> Path | None:
    """What is kept of the return under each condition: agents against conditions, in per cent."""
    rows = agents[agents["kept"].notna()] if "kept" in agents else agents.iloc[:0]
    rows = rows[rows["suite"].isin([suite.name for suite in suites])]
    if rows.empty:
        return None
    kinds = list(agents["agent"].unique())
    found = rows.set_index(["suite", "condition", "agent"])["kept"].unstack() * 100
    names = [(s.name, c.name) for s in suites for c in s.conditions if (s.name, c.name) in found.index]
    values = found.reindex(index=names, columns=kinds).to_numpy()
    # Conditions stand below one another, as their names are long and there are many.
    figure = Figure((3.6 + 1.5 * len(kinds), 1.9 + 0.27 * len(names)), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(np.clip(values, 0, 100), cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            color = "white" if value < 55 else "black"
            axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=8, color=color)
    axes.set_yticks(range(len(names)), [f"{s}: {c}".replace("_", " ") for s, c in names], fontsize=8)
    axes.set_xticks(range(len(kinds)), [kind.replace(" ", "\n") for kind in kinds], fontsize=8)
    axes.xaxis.tick_top()
    figure.colorbar(image, ax=axes, label="% of the return in the suite's first condition", fraction=0.06)
    return _save(figure, path)


def training_curves(folders: Mapping[str, Path], path: Path) -> Path | None:
    """Return during training of runs by name, and of each body where that was logged; None without curves."""
    curves = {name: curve for name, folder in folders.items() if (curve := read_curve(folder)) is not None}
    if not curves:
        return None
    figure, grid = _grid(len(curves), 4.8, 3.4, 0.3)
    for axes, (name, curve) in zip(grid, curves.items(), strict=True):
        columns = [c for c in curve if c.startswith("bodies/")]
        styles = dict.fromkeys(columns, {"color": GREY, "lw": 0.7, "alpha": 0.7})
        for column, style in (styles | {"rollout/ep_rew_mean": {"color": COLORS[0], "lw": 1.8}}).items():
            part = curve[["step", column]].dropna()
            axes.plot(part["step"] / 1e6, part[column], **style)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("million environment steps")
    return _save(figure, path)


def read_curve(folder: Path) -> pd.DataFrame | None:
    """``metrics.csv`` or ``curve.csv`` beside a policy (in its folder, of a bundled one), with returns."""
    for file in (folder.parent / "metrics.csv", folder.parent / "curve.csv", folder / "curve.csv"):
        if file.is_file():
            frame = pd.read_csv(file)
            if {"step", "rollout/ep_rew_mean"} <= set(frame.columns):
                return frame
    return None


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """One picture, of a size in inches."""
    figure = Figure((width, height), dpi=130, layout="constrained")
    return figure, _plain(figure.add_subplot())


def _grid(count: int, width: float, height: float, above: float) -> tuple[Figure, list[Axes]]:
    """So many axes of returns, side by side and below each other, of a size in inches."""
    columns = min(COLUMNS, count)
    lines = math.ceil(count / columns)
    figure = Figure((width * columns + 0.4, height * lines + above), dpi=130, layout="constrained")
    grid = [_plain(figure.add_subplot(lines, columns, i + 1)) for i in range(count)]
    for axes in grid[::columns]:
        axes.set_ylabel("return of an episode")
    return figure, grid


def _plain(axes: Axes) -> Axes:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def _save(figure: Figure, path: Path, named: Axes | None = None) -> Path:
    """Write the picture, with a legend of what ``named`` has names for."""
    handles, labels = named.get_legend_handles_labels() if named else ([], [])
    if handles:
        widest = 0.6 + 0.075 * max(map(len, labels))  # inches, of 8 points
        columns = min(len(handles), max(1, int((figure.get_figwidth() - 0.2) / widest)))
        figure.legend(handles, labels, loc="outside upper left", ncols=columns, frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
