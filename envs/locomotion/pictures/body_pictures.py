"""Pictures of bodies: the limb graph, a rendering beside it, and many renderings on one sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.offsetbox import AnnotationBbox, TextArea, VPacker

from .describe import Description, LimbRow

DPI = 100
# Of Okabe and Ito's palette: told apart with every kind of colour blindness; the marks differ, too.
ACTUATED, PASSIVE, EDGE, FILL, ROOT_FILL = "#0072B2", "#B04A00", "#555555", "#F3F3F3", "#FBEFC6"
ACTUATED_MARK, PASSIVE_MARK = "●", "○"
NAME_SIZE, ROW_SIZE, TITLE_SIZE = 10.0, 8.0, 12.0  # of limb names, joint rows and titles, in points
MOST_ROWS, MOST_LETTERS = 8, 30
"""Joint rows shown of a limb, and letters of a name; longer ones lose their middle."""

MARGIN, PADDING, TITLE_HEIGHT = 24, 7, 34
"""Pixels around a picture, around the text of a box, and of a line of title or legend."""

_FAMILY = ["DejaVu Sans"]  # comes with matplotlib, so that sizes are the same everywhere


def body_picture(
    description: Description, rendering: np.ndarray | None, path: Path, why_not: str = ""
) -> tuple[int, int]:
    """Writes a PNG of the rendering (height, width, 3) uint8 (left) and the limb graph (right).

    Without a rendering ``why_not`` is written under the title. Returns width and height of the PNG in pixels.
    """
    figure, axes = _canvas()
    boxes = [_box(limb, figure) for limb in description.limbs]
    sizes = np.array([box.get_bbox(_RULER).size for box in boxes])
    places, extent = tidy_tree([limb.parent_index for limb in description.limbs], sizes, (14, 26))
    left = 0 if rendering is None else rendering.shape[1] + MARGIN
    heading = f"{_shortened(description.name, 60)}: {', '.join(description.totals[:4])}"
    subtitle = why_not if rendering is None else ""
    legend = {f"{ACTUATED_MARK} actuated": ACTUATED, f"{PASSIVE_MARK} not actuated": PASSIVE}
    columns = [extent[0], *(_text_size(text, ROW_SIZE)[0] for text in (subtitle, "   ".join(legend)))]
    drawn = max(extent[1], 0 if rendering is None else rendering.shape[0])
    top = MARGIN + TITLE_HEIGHT
    width = max(left + max(columns), _text_size(heading, TITLE_SIZE, True)[0]) + 2 * MARGIN
    height = top + drawn + TITLE_HEIGHT + MARGIN
    _resize(figure, math.ceil(width), math.ceil(height))
    _text(axes, MARGIN, MARGIN + 8, heading, TITLE_SIZE, weight="bold", va="center")
    if subtitle:
        _text(axes, MARGIN, MARGIN + 26, subtitle, ROW_SIZE, color=EDGE, va="center")
    if rendering is not None:
        _paste(figure, rendering, MARGIN, top)
    # The graph stands in the middle of what is left beside the rendering.
    origin = np.array([MARGIN + left + (width - 2 * MARGIN - left - extent[0]) / 2, top])
    _draw_edges(axes, description.limbs, places + origin, sizes)
    style = {"boxstyle": "round,pad=0,rounding_size=0.4", "edgecolor": EDGE, "linewidth": 1.2}
    for limb, box, place in zip(description.limbs, boxes, places + origin, strict=True):
        style["facecolor"] = ROOT_FILL if limb.parent_index < 0 else FILL
        drawn = AnnotationBbox(box, place, box_alignment=(0.5, 1.0), pad=0, bboxprops=dict(style), zorder=2)
        axes.add_artist(drawn)
    for (text, colour), x in zip(legend.items(), (0, 90), strict=True):
        _text(axes, MARGIN + left + x, height - MARGIN, text, ROW_SIZE, color=colour, va="center")
    return _write(figure, path)


def sheet(names: Sequence[str], renderings: Sequence[np.ndarray], path: Path) -> tuple[int, int]:
    """Writes a PNG with one cell for each body: its rendering (height, width, 3) uint8, and its name below.

    All renderings are of one size. Returns width and height of the PNG in pixels.
    """
    columns = math.ceil(math.sqrt(len(names)))
    rows = math.ceil(len(names) / columns)
    cell_width, cell_height = renderings[0].shape[1] + 8, renderings[0].shape[0] + TITLE_HEIGHT + 4
    figure, axes = _canvas()
    _resize(figure, columns * cell_width, rows * cell_height)
    for number, (name, rendering) in enumerate(zip(names, renderings, strict=True)):
        row, column = divmod(number, columns)
        x, y = column * cell_width, row * cell_height
        _paste(figure, rendering, x + 4, y + 4)
        shown = _fitted(name, NAME_SIZE, cell_width - 8)
        caption = y + cell_height - TITLE_HEIGHT / 2
        _text(axes, x + cell_width / 2, caption, shown, NAME_SIZE, ha="center", va="center")
    return _write(figure, path)


def _box(limb: LimbRow, figure: Figure) -> VPacker:
    """The text of a limb's box: its name, and a line for each joint row, in the colour of what drives it."""
    lines = [(_shortened(limb.name), "black", NAME_SIZE, "bold")]
    shown = limb.joints if len(limb.joints) <= MOST_ROWS else limb.joints[: MOST_ROWS - 1]
    for joint in shown:
        if joint.kind in ("ball y", "ball z"):
            continue  # of a ball joint's three axes one is shown
        mark, colour = (PASSIVE_MARK, PASSIVE) if joint.actuator is None else (ACTUATED_MARK, ACTUATED)
        text = f"{mark} {_shortened(joint.name)}  {joint.kind.removesuffix(' x')}"
        lines.append((text, colour, ROW_SIZE, "normal"))
    if len(shown) < len(limb.joints):
        lines.append((f"and {len(limb.joints) - len(shown)} more", EDGE, ROW_SIZE, "normal"))
    parts = []
    for text, color, size, weight in lines:
        style = {"color": color, "size": size, "weight": weight, "family": _FAMILY, "parse_math": False}
        parts.append(TextArea(text, textprops=style))
    box = VPacker(children=parts, pad=PADDING * 72 / DPI, sep=3, align="left")
    box.set_figure(figure)
    return box


def _shortened(name: str, letters: int = MOST_LETTERS) -> str:
    name = " ".join(name.split())
    half = (letters - 1) // 2
    return name if len(name) <= letters else f"{name[:half]}…{name[-half:]}"


def _fitted(name: str, size: float, width: float) -> str:
    letters = len(name)
    while letters > 8 and _text_size(_shortened(name, letters), size)[0] > width:
        letters -= 1
    return _shortened(name, letters)


_RULER = RendererAgg(10, 10, DPI)


def _text_size(text: str, size: float, bold: bool = False) -> tuple[float, float]:
    """Width and height in pixels."""
    font = FontProperties(family=_FAMILY, size=size, weight="bold" if bold else "normal")
    width, height, _ = _RULER.get_text_width_height_descent(text or " ", font, False)
    return width, height


def _canvas() -> tuple[Figure, matplotlib.axes.Axes]:
    """A white figure, and axes over all of it in pixels from the upper left corner, once it has a size."""
    figure = Figure(dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.patch.set_alpha(0)
    return figure, axes


def _resize(figure: Figure, width: int, height: int) -> None:
    figure.set_size_inches(width / DPI, height / DPI)
    figure.axes[0].set(xlim=(0, width), ylim=(height, 0))


def _text(axes: matplotlib.axes.Axes, x: float, y: float, text: str, size: float, **style: object) -> None:
    # A dollar sign in a name is a dollar sign.
    axes.text(x, y, text, fontsize=size, fontfamily=_FAMILY, parse_math=False, **style)


def _paste(figure: Figure, picture: np.ndarray, x: int, y: int) -> None:
    """The picture, pixel by pixel, with its upper left corner at (x, y)."""
    height = round(figure.get_figheight() * DPI)
    figure.figimage(picture, x, height - y - picture.shape[0], origin="upper")


def _draw_edges(
    axes: matplotlib.axes.Axes, limbs: Sequence[LimbRow], places: np.ndarray, sizes: np.ndarray
) -> None:
    for child, limb in enumerate(limbs):
        parent = limb.parent_index
        if parent >= 0:
            start, end = places[parent] + (0, sizes[parent, 1]), places[child]
            bend = end[1] - 13  # half of the gap between levels: above every box of the child's level
            corners = [start, (start[0], bend), (end[0], bend), end]
            axes.plot(*np.array(corners).T, color=EDGE, linewidth=1.2, solid_joinstyle="round", zorder=1)


def _write(figure: Figure, path: Path) -> tuple[int, int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, format="png")
    return tuple(int(side) for side in figure.canvas.get_width_height())


def tidy_tree(
    parents: Sequence[int], sizes: np.ndarray, gap: tuple[float, float]
) -> tuple[np.ndarray, tuple[float, float]]:
    """Places of boxes of ``sizes`` (N, 2): trees side by side, and subtrees as near as their levels allow.

    Args:
        parents: index of each box's parent, -1 for a root; parents stand before children.
        sizes: width and height of each box.
        gap: between boxes side by side, and between levels.

    Returns:
        (N, 2) the middle of each box's upper edge, y downwards, from (0, 0) on; width and height of all.
    """
    children: list[list[int]] = [[] for _ in parents]
    depth = np.zeros(len(parents), int)
    for box, parent in enumerate(parents):
        if parent >= 0:
            children[parent].append(box)
            depth[box] = depth[parent] + 1
    shift = np.zeros(len(parents))  # of a box against its parent
    contours: list[list[tuple[float, float]]] = [[] for _ in parents]
    for box in reversed(range(len(parents))):
        placed, below = _side_by_side([contours[child] for child in children[box]], gap[0])
        shift[children[box]] = placed
        contours[box] = [(-sizes[box, 0] / 2, sizes[box, 0] / 2), *below]
    roots = [box for box, parent in enumerate(parents) if parent < 0]
    shift[roots], outline = _side_by_side([contours[root] for root in roots], gap[0])

    levels = [sizes[depth == level, 1].max() for level in range(depth.max() + 1)]
    tops = np.concatenate([[0.0], np.cumsum(np.array(levels) + gap[1])])
    left, right = min(low for low, _ in outline), max(high for _, high in outline)
    x = np.zeros(len(parents))
    for box, parent in enumerate(parents):
        x[box] = shift[box] + (x[parent] if parent >= 0 else -left)
    return np.stack([x, tops[depth]], 1), (float(right - left), float(tops[-1] - gap[1]))


def _side_by_side(
    contours: list[list[tuple[float, float]]], gap: float
) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Places of subtrees about 0, and the left and right end of each level of them together."""
    places: list[float] = []
    joined: list[tuple[float, float]] = []
    for contour in contours:
        pairs = zip(joined, contour, strict=False)
        place = max((before[1] + gap - own[0] for before, own in pairs), default=0.0)
        places.append(place)
        moved = [(low + place, high + place) for low, high in contour]
        both = [(a[0], b[1]) for a, b in zip(joined, moved, strict=False)]
        joined = both + joined[len(both) :] + moved[len(both) :]
    middle = (places[0] + places[-1]) / 2 if places else 0.0
    return np.array(places) - middle, [(low - middle, high - middle) for low, high in joined]
