"""Pictures of what goes on inside a policy: attention over time, and a body's graph with its messages."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...envs.errors import UserError
from .inside import Inside
from .inside_page import FAMILY, LimbBoxes, Page, text_width

MAP, SHUFFLE = "cividis", "#E8E8E8"
"""Cividis looks the same with every kind of colour blindness."""

UP, DOWN, ATTENTION = "#0072B2", "#D55E00", "#0072B2"
"""Of Okabe and Ito's palette; what they mean shows in the arrows' ends, too."""

SMALL, TITLE = 9.0, 12.0
"""Sizes of text in points."""

MOST_NAMES = 48
"""Rows of a heat map that are named; of more, every second, third and so on."""

THICKEST, THINNEST = 6.5, 0.6
"""Widths of arrows in points."""

_MARGIN, _BAR, _LEFT_OF_BAR, _MAP_WIDTH, _AXIS = 24, 14, 12, 620, 46


def attention_over_time(record: Inside) -> Figure:
    """Heat map of the share of the attention that each sensor gets in every step, rewards below.

    Of limbs it is the share that each limb gets, the mean over readers and layers. Where the sensors were
    put into another order, a dashed line and a mark above the map say so; rows are sensors, not slots.

    Args:
        record: of a policy with attention.

    Raises:
        UserError: a policy without.
    """
    if record.attention is None:
        raise UserError(f"{record.agent} has no attention; messages are drawn by limb_graph")
    shares = received(record)
    names = _names_width(record.names)
    rows = len(record.names)
    height = max(rows * (20 if rows <= MOST_NAMES else 3), 120)
    page = Page(names + _MAP_WIDTH + 110, 64 + height + 20 + 90 + _AXIS)
    page.write(_title(record), _MARGIN, 26, TITLE, weight="bold")
    axes = page.axes(names, 64, _MAP_WIDTH, height)
    label = "share of the attention"
    _heat(page, axes, shares, record.names, label, (names, 64, _MAP_WIDTH, height))
    axes.tick_params(labelbottom=False)
    for index, step in enumerate(record.shuffles):
        axes.axvline(step - 0.5, color=SHUFFLE, linewidth=1.0, linestyle=(0, (4, 3)))
        axes.plot(
            step - 0.5, 1.02, "v", color="black", ms=5, transform=axes.get_xaxis_transform(), clip_on=False
        )
        if index == 0:
            text = "▼ sensors put into another order"
            page.write(text, names + _MAP_WIDTH, 48, SMALL, ha="right")
    below = page.axes(names, 64 + height + 20, _MAP_WIDTH, 90)
    _rewards(below, record)
    return page.figure


def limb_graph(record: Inside) -> Figure:
    """A body's limb graph, arrows as thick as what is told along them, and the same over time.

    Of a policy with messages, arrows run along the body, up and down. Of a limb transformer they run from
    the limb that is read to the one that reads, between any two; the matrix beside has them all, with what
    a limb reads of itself, and one for each layer.

    Args:
        record: of a policy of limbs.

    Raises:
        UserError: a policy of sensors.
    """
    if record.parents is None:
        raise UserError(f"{record.body} has sensors and no limbs; draw attention_over_time")
    return _messages(record) if record.attention is None else _attention(record)


def received(record: Inside) -> np.ndarray:
    """(T, N) share of the attention that each token gets; of limbs the mean over readers and layers."""
    attention = record.attention
    return attention.mean((1, 2)) if attention.ndim == 4 else attention


def _messages(record: Inside) -> Figure:
    """Graph and heat maps of a policy with messages."""
    told = [(name, sizes) for name, sizes in (("up", record.up), ("down", record.down)) if sizes is not None]
    edges = [limb for limb, parent in enumerate(record.parents) if parent >= 0]
    graph = LimbBoxes(record.names, record.parents, gap=(40, 90))
    rows = {
        "up": [f"{record.names[i]} → {record.names[record.parents[i]]}" for i in edges],
        "down": [f"{record.names[record.parents[i]]} → {record.names[i]}" for i in edges],
    }
    names = _names_width(rows["up"] + rows["down"])
    height = max(22 * len(edges), 70)
    left = max(2 * _MARGIN + graph.width, 300)
    tall = max(graph.height + 70, len(told) * (height + 40) + _AXIS)
    page = Page(left + names + _MAP_WIDTH + 110, 64 + tall + 20)
    page.write(_title(record), _MARGIN, 26, TITLE, weight="bold")
    largest = max(float(sizes[:, edges].mean(0).max()) for _, sizes in told)
    axes = page.whole()
    origin = ((left - graph.width) / 2, 64 + (tall - 70 - graph.height) / 2)
    for name, sizes in told:
        for limb in edges:
            ends = (limb, record.parents[limb]) if name == "up" else (record.parents[limb], limb)
            width = _line_width(float(sizes[:, limb].mean()), largest)
            graph.arrow(axes, origin, *ends, width, UP if name == "up" else DOWN, 9 if len(told) == 2 else 0)
    graph.boxes(axes, origin)
    meaning = f"arrows: mean size of a message; thickest: {largest:.2g}"
    page.write(meaning, _MARGIN, 64 + tall - 22, SMALL)
    mark = {"up": ("up the body", UP, 0), "down": ("down the body", DOWN, 110)}
    for name, _ in told:
        text, colour, shift = mark[name]
        page.write(text, _MARGIN + shift, 64 + tall - 2, SMALL, color=colour, weight="bold")
    top = 64
    for index, (name, sizes) in enumerate(told):
        place = (left + names, top + 20, _MAP_WIDTH, height)
        page.write(mark[name][0], left + names, top + 8, SMALL, color=mark[name][1], weight="bold")
        axes = page.axes(*place)
        _heat(page, axes, sizes[:, edges], rows[name], "size of the message", place, _one_scale(told, edges))
        if index < len(told) - 1:
            axes.tick_params(labelbottom=False)
        else:
            axes.set_xlabel("step", fontsize=SMALL)
        top += height + 40
    return page.figure


def _one_scale(told: Sequence[tuple[str, np.ndarray]], edges: Sequence[int]) -> tuple[float, float]:
    """One scale for messages up and down."""
    return 0.0, max(float(sizes[:, edges].max()) for _, sizes in told)


def _attention(record: Inside) -> Figure:
    """Graph, matrices and heat map of a limb transformer."""
    mean = record.attention.mean(0)  # mean: (layers, N, N)
    n, layers = len(record.names), len(mean)
    graph = LimbBoxes(record.names, record.parents, gap=(100, 84))
    names = _names_width(record.names)
    cell = max(14, min(34, 200 // n))
    side, below = n * cell, _slanted_height(record.names)
    matrices = names + layers * side + (layers - 1) * 16
    left = max(2 * _MARGIN + graph.width, 300)
    map_height = max(20 * n, 90)
    tall = max(graph.height + 70, 40 + side + below + 40 + map_height + _AXIS)
    page = Page(left + max(names + _MAP_WIDTH, matrices) + 110, 64 + tall + 20)
    page.write(_title(record), _MARGIN, 26, TITLE, weight="bold")
    axes = page.whole()
    origin = ((left - graph.width) / 2, 64 + (tall - 70 - graph.height) / 2)
    shares = mean.mean(0)
    pairs = [(i, j) for i, j in itertools.product(range(n), repeat=2) if i != j]
    pairs.sort(key=lambda pair: shares[pair], reverse=True)
    shown = pairs[: 3 * n]
    largest = float(shares[shown[0]]) if shown else 1.0
    for reader, read in reversed(shown):  # the strongest lie on top
        width = _line_width(float(shares[reader, read]), largest)
        graph.arrow(axes, origin, read, reader, width, ATTENTION, 6, bend=0.18, alpha=0.85)
    graph.boxes(axes, origin)
    counted = f"the {len(shown)} largest of {len(pairs)}" if len(shown) < len(pairs) else "all"
    page.write(f"arrows: from the limb that is read ({counted})", _MARGIN, 64 + tall - 22, SMALL)
    page.write(f"mean over layers and steps; thickest: {largest:.2f}", _MARGIN, 64 + tall - 2, SMALL)
    top, limit = 64, (0.0, float(max(mean.max(), received(record).max())))
    for layer in range(layers):
        place = (left + names + layer * (side + 16), top + 36, side, side)
        axes = page.axes(*place)
        page.write(f"layer {layer + 1}", place[0], top + 24, SMALL, weight="bold")
        _matrix(axes, mean[layer], record.names, first=layer == 0, limit=limit)
    page.write("mean over steps; rows read, columns are read", left + names, top + 8, SMALL)
    place = (left + names, top + 36 + side + below + 36, _MAP_WIDTH, map_height)
    page.write("over time; mean over readers and layers", place[0], place[1] - 12, SMALL)
    axes = page.axes(*place)
    _heat(page, axes, received(record), record.names, "share of the attention", place, limit)
    axes.set_xlabel("step", fontsize=SMALL)
    return page.figure


def _heat(
    page: Page,
    axes: Axes,
    values: np.ndarray,
    names: Sequence[str],
    label: str,
    place: tuple[float, float, float, float],
    limit: tuple[float, float] | None = None,
) -> None:
    """``values`` (T, rows) as a map, row by row, with names at the left and a colour bar at the right."""
    low, high = limit or (0.0, float(values.max()))
    image = axes.imshow(
        values.T, aspect="auto", cmap=MAP, vmin=low, vmax=max(high, 1e-9), interpolation="nearest"
    )
    _name_rows(axes, names)
    axes.tick_params(axis="x", labelsize=SMALL)
    x, y, width, height = place
    bar = page.figure.colorbar(image, cax=page.axes(x + width + _LEFT_OF_BAR, y, _BAR, height))
    bar.ax.tick_params(labelsize=SMALL)
    bar.set_label(label if height >= 130 else label.replace(" of the ", " of\nthe "), fontsize=SMALL)


def _matrix(
    axes: Axes, values: np.ndarray, names: Sequence[str], first: bool, limit: tuple[float, float]
) -> None:
    axes.imshow(values, cmap=MAP, vmin=limit[0], vmax=limit[1], interpolation="nearest", aspect="auto")
    if first:
        _name_rows(axes, names)
    else:
        axes.set_yticks([])
    style = {"fontsize": SMALL, "rotation": 60, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(names)), names, fontfamily=FAMILY, parse_math=False, **style)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    every = math.ceil(len(names) / MOST_NAMES)
    places = range(0, len(names), every)
    style = {"fontsize": SMALL, "fontfamily": FAMILY, "parse_math": False}
    axes.set_yticks(places, [names[place] for place in places], **style)


def _rewards(axes: Axes, record: Inside) -> None:
    axes.plot(record.rewards, color="black", linewidth=1.0)
    for step in record.shuffles:
        axes.axvline(step - 0.5, color="#888888", linewidth=1.0, linestyle=(0, (4, 3)))
    axes.set_xlim(-0.5, len(record.rewards) - 0.5)
    axes.set_xlabel("step", fontsize=SMALL)
    axes.set_ylabel("reward", fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)


def _title(record: Inside) -> str:
    steps = len(record.rewards)
    return f"{record.agent} on {record.body}: return {record.rewards.sum():.4g} in {steps} steps"


def _line_width(value: float, largest: float) -> float:
    return THINNEST + (THICKEST - THINNEST) * value / max(largest, 1e-9)


def _names_width(names: Sequence[str]) -> float:
    """Pixels at the left of a heat map: its rows' names, and the margin."""
    return max(text_width(name, SMALL) for name in names) + _MARGIN + 8


def _slanted_height(names: Sequence[str]) -> float:
    """Pixels below a matrix: its columns' names at 60 degrees."""
    return max(text_width(name, SMALL) for name in names) * math.sin(math.radians(60)) + 20
