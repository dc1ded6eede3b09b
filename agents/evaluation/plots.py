"""The report's pictures: degradation curves, bodies, profiles, heat map, training curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .conditions import Suite, Sweep
from .statistics import profile

# Okabe and Ito's colours, told apart by colour-blind readers, and markers that say the same again.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GREY = "#767676"
DPI = 130
COLUMNS = 3


class Look:
    """Colour and marker of each agent, the same in every picture."""

    def __init__(self, agents: Sequence[str]) -> None:
        self._places = {agent: i for i, agent in enumerate(agents)}

    def color(self, agent: str) -> str:
        """Of its lines and dots."""
        return COLORS[self._places[agent] % len(COLORS)]

    def marker(self, agent: str) -> str:
        """Of its dots."""
        return MARKERS[self._places[agent] % len(MARKERS)]


def degradation(suite: Suite, agents: pd.DataFrame, look: Look, path: Path) -> Path | None:
    """Mean return along every series of a suite, with bands of 95 %; None where there is no series."""
    rows = agents[agents["suite"] == suite.name]
    places = {condition.name: condition for condition in suite.conditions}
    sweeps = [s for s in suite.sweeps.values() if any(places[c].sweep == s.name for c in rows["condition"])]
    if not sweeps:
        return None
    columns = min(COLUMNS, len(sweeps))
    lines = math.ceil(len(sweeps) / columns)
    figure = _figure(4.6 * columns + 0.4, 3.5 * lines + 0.5)
    for i, sweep in enumerate(sweeps):
        axes = figure.add_subplot(lines, columns, i + 1)
        for agent, own in rows.groupby("agent", sort=False):
            _curve(axes, suite, sweep, own, str(agent), look)
        if rows["random"].notna().all():
            axes.axhline(
                rows["random"].mean(), color=GREY, linestyle=":", linewidth=1.2, label="random actions"
            )
        if sweep.reference_at is None:
            name = suite.conditions[0].name.replace("_", " ")
            axes.plot([], [], color=GREY, linestyle="--", linewidth=1.0, label=f"dashed: {name}")
        _along(axes, sweep, rows, places)
        _limit(axes, rows[(rows["runs"] != 2)], rows)
        axes.set_xlabel(sweep.label)
        if i % columns == 0:
            axes.set_ylabel("return of an episode")
        _plain(axes)
    _legend(figure, figure.axes[0])
    return _save(figure, path)


def _curve(axes: Axes, suite: Suite, sweep: Sweep, rows: pd.DataFrame, agent: str, look: Look) -> None:
    places = {c.name: c.x for c in suite.conditions if c.sweep == sweep.name}
    own = rows[rows["condition"].isin(places)].assign(x=lambda f: f["condition"].map(places))
    first = rows[rows["condition"] == suite.conditions[0].name]
    if sweep.reference_at is not None:
        own = pd.concat([own, first.assign(x=sweep.reference_at)])
    own = own.sort_values("x")
    x = own["x"].astype(float)
    color, marker = look.color(agent), look.marker(agent)
    axes.plot(x, own["mean"], color=color, marker=marker, markersize=5, linewidth=1.8, label=agent)
    axes.fill_between(x, own["mean_low"], own["mean_high"], color=color, alpha=0.2, linewidth=0)
    if sweep.reference_at is None and len(first):
        axes.axhline(float(first["mean"].iloc[0]), color=color, linestyle="--", linewidth=1.0)


def _limit(axes: Axes, known: pd.DataFrame, rows: pd.DataFrame) -> None:
    """All means and bands are seen, but for the bands of two runs, which would leave nothing else to see."""
    values = [rows["mean"], rows["random"], known["mean_low"], known["mean_high"]]
    together = pd.concat(values).dropna()
    low, high = float(together.min()), float(together.max())
    margin = 0.06 * max(high - low, 1e-9)
    axes.set_ylim(low - margin, high + margin)


def _along(axes: Axes, sweep: Sweep, rows: pd.DataFrame, places: Mapping[str, object]) -> None:
    values = {places[name].x for name in rows["condition"] if places[name].sweep == sweep.name}
    if sweep.reference_at is not None:
        values.add(sweep.reference_at)
    ticks = sorted(float(value) for value in values)
    if sweep.logarithmic:
        axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def bodies_as_dots(bodies: pd.DataFrame, look: Look, path: Path) -> Path | None:
    """Mean return on each seen and unseen body with its interval; None where there are no several bodies."""
    rows = bodies[bodies["suite"] == "unseen_morphology"]
    if rows["body"].nunique() < 2:
        return None
    # From the bottom upwards: unseen bodies, then seen ones, each in the family's order (10 links after 9).
    order = rows.drop_duplicates("body")[::-1].sort_values("seen", kind="stable")
    if len(order) > 40:  # of endless families: too many to name
        return None
    heights = {body: i for i, body in enumerate(order["body"])}
    agents = list(dict.fromkeys(rows["agent"]))
    figure = _figure(8.4, 1.4 + len(heights) * (0.24 + 0.1 * len(agents)))
    axes = figure.add_subplot()
    for i, agent in enumerate(agents):
        own = rows[rows["agent"] == agent]
        shift = (i - (len(agents) - 1) / 2) * 0.7 / max(len(agents), 2)
        for j, (body, group) in enumerate(own.groupby("body")):
            mean, low, high = _over_runs(group)
            y = heights[body] - shift
            axes.plot([low, high], [y, y], color=look.color(agent), linewidth=1.8)
            axes.plot(
                mean, y, look.marker(agent), color=look.color(agent), markersize=6, label=None if j else agent
            )
    first = rows.drop_duplicates("body").set_index("body")
    for column, marker, label in (("random", "|", "random actions"), ("specialist", "d", "specialist")):
        if first[column].notna().any():
            y = [heights[body] for body in first.index]
            axes.plot(first[column], y, marker, color=GREY, markersize=7, linestyle="none", label=label)
    unseen = int((~order["seen"]).sum())
    if 0 < unseen < len(order):
        axes.axhspan(-0.5, unseen - 0.5, color="#EFEFEF", zorder=0)
    names = [
        f"{body} ({'seen' if seen else 'unseen'})"
        for body, seen in zip(order["body"], order["seen"], strict=True)
    ]
    axes.set_yticks(range(len(order)), names)
    axes.set_ylim(-0.5, len(order) - 0.5)
    several = rows.groupby(["agent", "body"]).size().max() > 1
    lines = "from the lowest run to the highest" if several else "95 % over episodes"
    axes.set_xlabel(f"return of an episode; lines: {lines}")
    _plain(axes)
    _legend(figure, axes)
    return _save(figure, path)


def _over_runs(group: pd.DataFrame) -> tuple[float, float, float]:
    """Mean and interval: over episodes of one run; of several, the range of the runs' means."""
    if len(group) == 1:
        row = group.iloc[0]
        return row["mean"], row["low"], row["high"]
    return group["mean"].mean(), group["mean"].min(), group["mean"].max()


def profiles(bodies: pd.DataFrame, look: Look, path: Path) -> Path | None:
    """Share of runs and bodies above each score, per agent; None for fewer than three of them."""
    rows = bodies[bodies["suite"] == "unseen_morphology"]
    measure = "normalized" if len(rows) and rows["normalized"].notna().all() else "mean"
    if rows["body"].nunique() < 3:
        return None
    values = rows[measure]
    thresholds = np.linspace(min(0.0, float(values.min())), float(values.max()) * 1.02, 60)
    figure = _figure(6.2, 4.0)
    axes = figure.add_subplot()
    for agent, own in rows.groupby("agent", sort=False):
        scores = own.pivot_table(measure, "run", "body").dropna().to_numpy()
        estimates = profile(scores, thresholds)
        color = look.color(str(agent))
        axes.plot(thresholds, [e.value for e in estimates], color=color, linewidth=1.8, label=agent)
        low, high = [e.low for e in estimates], [e.high for e in estimates]
        axes.fill_between(thresholds, low, high, color=color, alpha=0.2, linewidth=0)
    scale = "score τ (0: random actions, 1: specialist)" if measure == "normalized" else "return τ"
    axes.set_xlabel(scale)
    axes.set_ylabel("share of runs and bodies above τ")
    axes.set_ylim(0, 1.02)
    _plain(axes)
    _legend(figure, axes)
    return _save(figure, path)


def heat_map(agents: pd.DataFrame, suites: Sequence[Suite], path: Path) -> Path | None:
    """What is kept of the return under each condition: agents against conditions, in per cent."""
    rows = agents[agents["kept"].notna()] if "kept" in agents else agents.iloc[:0]
    if rows.empty:
        return None
    names = [(s.name, c.name) for s in suites for c in s.conditions]
    kinds = list(dict.fromkeys(agents["agent"]))
    found = rows.set_index(["agent", "suite", "condition"])["kept"]
    columns = [name for name in names if any((kind, *name) in found.index for kind in kinds)]
    values = np.array([[100 * found.get((kind, *name), np.nan) for name in columns] for kind in kinds])
    # Conditions stand below one another, as their names are long and there are many.
    figure = _figure(3.6 + 1.5 * len(kinds), 1.9 + 0.27 * len(columns))
    axes = figure.add_subplot()
    image = axes.imshow(np.clip(values.T, 0, 100), cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for (i, j), value in np.ndenumerate(values.T):
        if not np.isnan(value):
            axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=8,
                      color="white" if value < 55 else "black")  # fmt: skip
    axes.set_yticks(range(len(columns)), [f"{s}: {c}".replace("_", " ") for s, c in columns], fontsize=8)
    axes.set_xticks(range(len(kinds)), [_wrapped(kind) for kind in kinds], fontsize=8)
    axes.xaxis.tick_top()
    figure.colorbar(image, ax=axes, label="% of the return in the suite's first condition", fraction=0.06)
    return _save(figure, path)


def training_curves(folders: Mapping[str, Path], path: Path) -> Path | None:
    """Return during training, of each body where that was logged; None where no run left its curve.

    Args:
        folders: of each run, by its name.
        path: of the picture.
    """
    curves = {name: curve for name, folder in folders.items() if (curve := read_curve(folder)) is not None}
    if not curves:
        return None
    columns = min(COLUMNS, len(curves))
    lines = math.ceil(len(curves) / columns)
    figure = _figure(4.8 * columns + 0.4, 3.4 * lines + 0.3)
    for i, (name, curve) in enumerate(curves.items()):
        axes = figure.add_subplot(lines, columns, i + 1)
        for column in [c for c in curve if c.startswith("bodies/")]:
            part = curve[["step", column]].dropna()
            axes.plot(part["step"] / 1e6, part[column], color=GREY, linewidth=0.7, alpha=0.7)
        part = curve[["step", "rollout/ep_rew_mean"]].dropna()
        axes.plot(part["step"] / 1e6, part["rollout/ep_rew_mean"], color=COLORS[0], linewidth=1.8)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("million environment steps")
        if i % columns == 0:
            axes.set_ylabel("return of an episode")
        _plain(axes)
    return _save(figure, path)


def read_curve(folder: Path) -> pd.DataFrame | None:
    """``metrics.csv`` or ``curve.csv`` beside a policy (in its folder, of a bundled one), with returns."""
    for file in (folder.parent / "metrics.csv", folder.parent / "curve.csv", folder / "curve.csv"):
        if file.is_file():
            frame = pd.read_csv(file)
            if {"step", "rollout/ep_rew_mean"} <= set(frame.columns):
                return frame
    return None


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        widest = 0.6 + 0.075 * max(map(len, labels))  # inches, of 8 points
        columns = min(len(handles), max(1, int((figure.get_figwidth() - 0.2) / widest)))
        figure.legend(handles, labels, loc="outside upper left", ncols=columns, frameon=False, fontsize=8)


def _wrapped(name: str) -> str:
    return name.replace(" ", "\n")


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
