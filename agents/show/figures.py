"""Pictures of what goes on inside a policy: attention over time, and a body's graph with its messages."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from ...envs.errors import UserError
from ...envs.locomotion.pictures.body_pictures import tidy_tree
from .inside import Inside

DPI = 100
MAP = "cividis"  # looks the same with every kind of colour blindness
COLORS = {"up": "#0072B2", "down": "#D55E00"}  # of Okabe and Ito's palette
EDGE, FILL, ROOT_FILL = "#555555", "#F3F3F3", "#FBEFC6"
SMALL, NAME, TITLE = 9.0, 10.0, 12.0  # sizes of text in points
MOST_NAMES = 48  # rows of a heat map that are named; of more, every second, third and so on
THICKEST, THINNEST = 6.5, 0.6  # widths of arrows in points
MARGIN, MAP_WIDTH, AXIS = 24, 620, 60  # pixels around a graph, of a heat map, below it for its axis
FAMILY = ["DejaVu Sans"]  # comes with Matplotlib, so that sizes are the same everywhere
_TEXT = {"fontsize": SMALL, "fontfamily": FAMILY, "parse_math": False}
_BOX = {"boxstyle": "round,pad=0,rounding_size=5", "linewidth": 1.2, "edgecolor": EDGE, "zorder": 4}
_ARROW = {"mutation_scale": 1, "shrinkA": 0, "shrinkB": 0, "joinstyle": "miter", "capstyle": "butt"}
_RULER = RendererAgg(10, 10, DPI)


def inside_figure(record: Inside) -> Figure:
    """The picture that fits: `limb_graph` of limbs, else `attention_over_time`."""
    return limb_graph(record) if record.kind == "limbs" else attention_over_time(record)


def attention_over_time(record: Inside) -> Figure:
    """Heat map of the share of the attention that each sensor gets in every step, rewards below.

    Of limbs it is the share that each limb gets, the mean over readers and layers. Where the sensors were
    put into another order, a dashed line and a mark above the map say so; rows are sensors, not slots.

    Raises:
        UserError: a policy without attention.
    """
    if record.attention is None:
        raise UserError(f"{record.agent} has no attention; messages are drawn by limb_graph")
    rows = len(record.names)
    height = max(rows * (20 if rows <= MOST_NAMES else 3), 120)
    figure = _figure(record, _names_width(record.names) + MAP_WIDTH + 110, height + 90 + 2 * AXIS)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(height, 90))
    _heat(axes, received(record), record.names, "share of the attention")
    below.plot(record.rewards, color="black", linewidth=1.0)
    below.set_xlim(-0.5, len(record.rewards) - 0.5)
    below.set_ylabel("reward", fontsize=SMALL)
    below.spines[["top", "right"]].set_visible(False)
    _name_steps(below)
    for step in record.shuffles:
        for part, color in ((axes, "#E8E8E8"), (below, "#888888")):
            part.axvline(step - 0.5, color=color, linewidth=1.0, linestyle=(0, (4, 3)))
        top = axes.get_xaxis_transform()
        axes.plot(step - 0.5, 1.02, "v", color="black", ms=5, transform=top, clip_on=False)
    if record.shuffles:
        axes.set_title("▼ sensors put into another order", loc="right", pad=12, **_TEXT)
    return figure


def received(record: Inside) -> np.ndarray:
    """(T, N) share of the attention that each token gets; of limbs the mean over readers and layers."""
    attention = record.attention
    return attention.mean((1, 2)) if attention.ndim == 4 else attention


def limb_graph(record: Inside) -> Figure:
    """A body's limb graph, arrows as thick as what is told along them, and the same over time.

    Of a policy with messages, arrows run along the body, up and down. Of a limb transformer they run from
    the limb that is read to the one that reads, between any two; the matrix beside has them all, with what
    a limb reads of itself, and one for each layer.

    Raises:
        UserError: a policy of sensors; or a body of one limb, which has nobody to tell anything.
    """
    if record.parents is None:
        raise UserError(f"{record.body} has sensors and no limbs; draw attention_over_time")
    return _messages(record) if record.attention is None else _attention(record)


def _messages(record: Inside) -> Figure:
    """Graph and heat maps of a policy with messages."""
    names, parents, ways = record.names, record.parents, record.messages
    edges = [limb for limb, parent in enumerate(parents) if parent >= 0]
    if not edges:
        raise UserError(f"{record.body} has one limb, which has nobody to tell anything")
    ends = {"up": [(i, parents[i]) for i in edges], "down": [(parents[i], i) for i in edges]}
    rows = {way: [f"{names[a]} → {names[b]}" for a, b in pairs] for way, pairs in ends.items()}
    sizes = {way: told[:, edges] for way, told in ways.items()}  # each (T, edges)
    graph = LimbBoxes(names, parents, gap=(40, 90))
    width = _names_width(rows["up"] + rows["down"]) + MAP_WIDTH + 110
    height = len(ways) * (max(22 * len(edges), 90) + 30) + AXIS
    figure, axes, beside = _with_graph(record, graph, width, height)
    largest = max(float(told.mean(0).max()) for told in sizes.values())
    for way, told in sizes.items():
        for pair, mean in zip(ends[way], told.mean(0), strict=True):
            aside = 9 if len(ways) == 2 else 0
            graph.arrow(axes, *pair, float(mean) / max(largest, 1e-9), COLORS[way], aside)
    graph.boxes(axes)
    _caption(axes, f"arrows: mean size of a message; thickest: {largest:.2g}\n")
    limit = max(float(told.max()) for told in sizes.values())
    maps = beside.subplots(len(ways), 1, sharex=True, squeeze=False)[:, 0]
    for part, (way, told) in zip(maps, sizes.items(), strict=True):
        _heat(part, told, rows[way], "size of the message", limit)
        part.set_title(f"{way} the body", loc="left", color=COLORS[way], weight="bold", **_TEXT)
    _name_steps(maps[-1])
    return figure


def _attention(record: Inside) -> Figure:
    """Graph, matrices and heat map of a limb transformer."""
    mean = record.attention.mean(0)  # mean: (layers, N, N)
    n, names = len(record.names), record.names
    graph = LimbBoxes(names, record.parents, gap=(100, 84))
    side = n * max(14, min(34, 200 // n))
    slanted = max(text_width(name, SMALL) for name in names) * math.sin(math.radians(60)) + 20
    width = _names_width(names) + max(MAP_WIDTH, len(mean) * (side + 30)) + 110
    heights = side + slanted + 70, max(20 * n, 110) + 30 + AXIS
    figure, axes, beside = _with_graph(record, graph, width, sum(heights))
    shares = mean.mean(0)
    pairs = [(i, j) for i, j in itertools.product(range(n), repeat=2) if i != j]
    pairs.sort(key=lambda pair: shares[pair], reverse=True)
    shown = pairs[: 3 * n]
    largest = float(shares[shown[0]]) if shown else 1.0
    for reader, read in reversed(shown):  # the strongest lie on top
        share = float(shares[reader, read]) / max(largest, 1e-9)
        graph.arrow(axes, read, reader, share, COLORS["up"], aside=6, bend=0.18, alpha=0.85)
    graph.boxes(axes)
    counted = f"the {len(shown)} largest of {len(pairs)}" if len(shown) < len(pairs) else "all"
    _caption(
        axes,
        f"arrows: from the limb that is read ({counted})\n"
        f"mean over layers and steps; thickest: {largest:.2f}",
    )
    limit = float(max(mean.max(), received(record).max()))
    above, below = beside.subfigures(2, 1, height_ratios=heights)
    above.suptitle("mean over steps; rows read, columns are read", x=0.01, ha="left", **_TEXT)
    for layer, part in enumerate(above.subplots(1, len(mean), squeeze=False)[0]):
        part.imshow(mean[layer], cmap=MAP, vmin=0, vmax=limit, interpolation="nearest")
        part.set_title(f"layer {layer + 1}", loc="left", weight="bold", **_TEXT)
        part.set_xticks(range(n), names, rotation=60, ha="right", rotation_mode="anchor", **_TEXT)
        _name_rows(part, names if layer == 0 else ())
    part = below.subplots()
    part.set_title("over time; mean over readers and layers", loc="left", **_TEXT)
    _heat(part, received(record), names, "share of the attention", limit)
    _name_steps(part)
    return figure


def _figure(record: Inside, width: float, height: float) -> Figure:
    """A figure of so many pixels with a title."""
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    steps, total = len(record.rewards), record.rewards.sum()
    title = f"{record.agent} on {record.body}: return {total:.4g} in {steps} steps"
    style = _TEXT | {"fontsize": TITLE, "fontweight": "bold"}
    figure.suptitle(title, x=MARGIN / width, ha="left", **style)
    return figure


def _with_graph(
    record: Inside, graph: LimbBoxes, width: float, height: float
) -> tuple[Figure, Axes, SubFigure]:
    """A figure, axes in pixels at its left with room for a graph, and what is beside, of a size in pixels."""
    left, height = max(graph.width, 340) + 2 * MARGIN, max(height, graph.height + 90)  # captions take 340
    figure = _figure(record, left + width, height + 40)
    _, beside = figure.subfigures(1, 2, width_ratios=(left, width))
    axes = figure.add_axes((0, 0, left / (left + width), height / (height + 40)))
    axes.set_axis_off()
    axes.set_xlim((graph.width - left) / 2, (graph.width + left) / 2)
    top = (height - 70 - graph.height) / 2  # captions lie below
    axes.set_ylim(height - top, -top)
    return figure, axes, beside


def _caption(axes: Axes, text: str) -> None:
    """In the lower left corner."""
    axes.text(MARGIN, MARGIN, text.strip(), transform=None, linespacing=1.6, **_TEXT)


def _heat(
    axes: Axes, values: np.ndarray, names: Sequence[str], label: str, limit: float | None = None
) -> None:
    """``values`` (T, rows) as a map, row by row, with names at the left and a colour bar at the right."""
    high = max(float(values.max()) if limit is None else limit, 1e-9)
    look = {"aspect": "auto", "cmap": MAP, "interpolation": "nearest"}
    image = axes.imshow(values.T, vmin=0, vmax=high, **look)
    _name_rows(axes, names)
    bar = axes.figure.colorbar(image, cax=axes.inset_axes((1.02, 0, 0.022, 1)))
    bar.ax.tick_params(labelsize=SMALL)
    bar.set_label(label.replace(" of the ", " of\nthe "), fontsize=SMALL)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    places = range(0, len(names), math.ceil(len(names) / MOST_NAMES) or 1)
    axes.set_yticks(places, [names[place] for place in places], **_TEXT)
    axes.tick_params(labelsize=SMALL)


def _name_steps(axes: Axes) -> None:
    axes.set_xlabel("step", fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)


def _names_width(names: Sequence[str]) -> float:
    """Pixels at the left of a heat map: its rows' names, and the margin."""
    return max(text_width(name, SMALL) for name in names) + MARGIN + 8


class LimbBoxes:
    """A body's limbs as boxes, root on top, in pixels from the upper left corner.

    ``gap``: pixels between boxes side by side, and between levels; parents stand before children.
    """

    def __init__(self, names: Sequence[str], parents: Sequence[int], gap: tuple[float, float]) -> None:
        self._names, self._parents = names, parents
        self.sizes = np.array([[text_width(name, NAME, True) + 18, 26] for name in names])
        self.places, (self.width, self.height) = tidy_tree(parents, self.sizes, gap)

    def boxes(self, axes: Axes) -> None:
        """Draw limbs and thin lines along the body."""
        for limb, (x, y) in enumerate(self.places):
            (width, height), parent = self.sizes[limb], self._parents[limb]
            fill = ROOT_FILL if parent < 0 else FILL
            axes.add_patch(FancyBboxPatch((x - width / 2, y), width, height, facecolor=fill, **_BOX))
            text = _TEXT | {"fontsize": NAME, "weight": "bold", "ha": "center", "va": "center"}
            axes.text(x, y + height / 2, self._names[limb], zorder=5, **text)
            if parent >= 0:
                ends = np.array([self.places[parent] + (0, self.sizes[parent, 1]), (x, y)])
                axes.plot(*ends.T, color=EDGE, linewidth=0.8, linestyle=":", zorder=1)

    def arrow(
        self,
        axes: Axes,
        start: int,
        end: int,
        share: float,
        color: str,
        aside: float,
        bend: float = 0.0,
        alpha: float = 0.9,
    ) -> None:
        """An arrow from limb to limb, ``share`` of the thickest, ``aside`` to its right in pixels or bent."""
        first, last = (self.places[limb] + (0, self.sizes[limb, 1] / 2) for limb in (start, end))
        along = (last - first) / max(float(np.linalg.norm(last - first)), 1e-9)
        shift = aside * np.array([-along[1], along[0]])
        # Boxes hide what lies below them: an arrow begins and ends where it leaves and meets one.
        first, last = first + along * self._reach(start, along), last - along * self._reach(end, along)
        width = THINNEST + (THICKEST - THINNEST) * share
        head = f"-|>,head_length={4 + 0.9 * width},head_width={2 + 0.7 * width}"
        look = {"connectionstyle": f"arc3,rad={bend}", "arrowstyle": head, "linewidth": width}
        look |= {"color": color, "alpha": alpha, "zorder": 2, **_ARROW}
        axes.add_patch(FancyArrowPatch(first + shift, last + shift, **look))

    def _reach(self, limb: int, along: np.ndarray) -> float:
        """Pixels from a box's middle to its side in a direction, and a little more."""
        half = self.sizes[limb] / 2
        return min(half[axis] / abs(along[axis]) for axis in (0, 1) if abs(along[axis]) > 1e-9) + 4


def text_width(text: str, size: float, bold: bool = False) -> float:
    """In pixels."""
    font = FontProperties(family=FAMILY, size=size, weight="bold" if bold else "normal")
    return _RULER.get_text_width_height_descent(text or " ", font, False)[0]
