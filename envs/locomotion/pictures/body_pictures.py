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
from matplotlib.patches import FancyBboxPatch

from .describe import Description, JointRow, LimbRow
from .tree_layout import tidy_tree

DPI = 100
# Of Okabe and Ito's palette: told apart with every kind of colour blindness; the marks differ, too.
ACTUATED, PASSIVE, EDGE, FILL, ROOT_FILL = "#0072B2", "#B04A00", "#555555", "#F3F3F3", "#FBEFC6"
ACTUATED_MARK, PASSIVE_MARK = "●", "○"
NAME_SIZE, ROW_SIZE, TITLE_SIZE = 10.0, 8.0, 12.0
"""Of limb names, joint rows and titles, in points."""

MOST_ROWS, MOST_LETTERS = 8, 30
"""Joint rows shown of a limb, and letters of a name; longer ones lose their middle."""

MARGIN, PADDING, TITLE_HEIGHT = 24, 7, 34
"""Pixels around a picture, around the text of a box, and of a line of title or legend."""

_FAMILY = ["DejaVu Sans"]  # comes with matplotlib, so that sizes are the same everywhere


def body_picture(
    description: Description, rendering: np.ndarray | None, path: Path, why_not: str = ""
) -> tuple[int, int]:
    """Writes a PNG of the rendering (left, if there is one) and the limb graph (right).

    Args:
        description: of the body.
        rendering: (height, width, 3) uint8, or None.
        path: of the PNG.
        why_not: written under the title where there is no rendering.

    Returns:
        Width and height of the PNG in pixels.
    """
    boxes = [_box_lines(limb) for limb in description.limbs]
    sizes = np.array([_box_size(lines) for lines in boxes], float)
    places, extent = tidy_tree([limb.parent_index for limb in description.limbs], sizes, (14, 26))
    left = 0 if rendering is None else rendering.shape[1] + MARGIN
    heading, subtitle = _heading(description), why_not if rendering is None else ""
    legend = f"{ACTUATED_MARK} actuated   {PASSIVE_MARK} not actuated"
    columns = [extent[0], *(_text_size(text, ROW_SIZE)[0] for text in (subtitle, legend))]
    drawn = max(extent[1], 0 if rendering is None else rendering.shape[0])
    top = MARGIN + TITLE_HEIGHT
    width = max(left + max(columns), _text_size(heading, TITLE_SIZE, True)[0]) + 2 * MARGIN
    height = top + drawn + TITLE_HEIGHT + MARGIN
    figure, axes = _canvas(math.ceil(width), math.ceil(height))
    _text(axes, MARGIN, MARGIN + 8, heading, TITLE_SIZE, weight="bold", va="center")
    if subtitle:
        _text(axes, MARGIN, MARGIN + 26, subtitle, ROW_SIZE, color=EDGE, va="center")
    if rendering is not None:
        _paste(figure, rendering, MARGIN, top)
    # The graph stands in the middle of what is left beside the rendering.
    origin = np.array([MARGIN + left + (width - 2 * MARGIN - left - extent[0]) / 2, top])
    _draw_edges(axes, description.limbs, places + origin, sizes)
    for limb, lines, place, size in zip(description.limbs, boxes, places + origin, sizes, strict=True):
        _draw_box(axes, limb, lines, place, size)
    for mark, colour, x in ((ACTUATED_MARK, ACTUATED, 0), (PASSIVE_MARK, PASSIVE, 90)):
        word = "actuated" if mark == ACTUATED_MARK else "not actuated"
        _text(axes, MARGIN + left + x, height - MARGIN, f"{mark} {word}", ROW_SIZE, color=colour, va="center")
    return _write(figure, path)


def sheet(
    names: Sequence[str], renderings: Sequence[np.ndarray], path: Path, columns: int | None = None
) -> tuple[int, int]:
    """Writes a PNG with one cell for each body: its rendering, and its name below.

    Args:
        names: of the bodies.
        renderings: (height, width, 3) uint8 each, all of one size.
        path: of the PNG.
        columns: cells side by side; None: about as many as below each other.

    Returns:
        Width and height of the PNG in pixels: those of a cell, `cell_size`, times columns and rows.
    """
    columns = columns or sheet_columns(len(names))
    rows = math.ceil(len(names) / columns)
    cell_width, cell_height = cell_size(*renderings[0].shape[1::-1])
    figure, axes = _canvas(columns * cell_width, rows * cell_height)
    for number, (name, rendering) in enumerate(zip(names, renderings, strict=True)):
        row, column = divmod(number, columns)
        x, y = column * cell_width, row * cell_height
        _paste(figure, rendering, x + 4, y + 4)
        shown = _fitted(name, NAME_SIZE, cell_width - 8)
        caption = y + cell_height - TITLE_HEIGHT / 2
        _text(axes, x + cell_width / 2, caption, shown, NAME_SIZE, ha="center", va="center")
    return _write(figure, path)


def sheet_columns(bodies: int) -> int:
    """Cells side by side on a sheet of that many bodies."""
    return math.ceil(math.sqrt(bodies))


def cell_size(width: int, height: int) -> tuple[int, int]:
    """Width and height in pixels of a sheet's cell that holds a rendering of ``width`` and ``height``."""
    return width + 8, height + TITLE_HEIGHT + 4


def _heading(description: Description) -> str:
    return f"{_shortened(description.name, 60)}: {', '.join(description.totals[:4])}"


def _box_lines(limb: LimbRow) -> list[tuple[str, str]]:
    """The text and colour of each line of a limb's box, its name first."""
    lines = [(_shortened(limb.name), "black")]
    shown = limb.joints if len(limb.joints) <= MOST_ROWS else limb.joints[: MOST_ROWS - 1]
    lines += [_row_line(joint) for joint in _without_axes(shown)]
    if len(shown) < len(limb.joints):
        lines.append((f"and {len(limb.joints) - len(shown)} more", EDGE))
    return lines


def _without_axes(joints: Sequence[JointRow]) -> list[JointRow]:
    """The three axes of a ball joint as the one joint that they are."""
    return [joint for joint in joints if joint.kind not in ("ball y", "ball z")]


def _row_line(joint: JointRow) -> tuple[str, str]:
    kind = joint.kind.removesuffix(" x")
    if joint.actuator is None:
        return f"{PASSIVE_MARK} {_shortened(joint.name)}  {kind}", PASSIVE
    return f"{ACTUATED_MARK} {_shortened(joint.name)}  {kind}", ACTUATED


def _shortened(name: str, letters: int = MOST_LETTERS) -> str:
    name = " ".join(name.split())
    half = (letters - 1) // 2
    return name if len(name) <= letters else f"{name[:half]}…{name[-half:]}"


def _fitted(name: str, size: float, width: float) -> str:
    letters = len(name)
    while letters > 8 and _text_size(_shortened(name, letters), size)[0] > width:
        letters -= 1
    return _shortened(name, letters)


def _box_size(lines: Sequence[tuple[str, str]]) -> tuple[float, float]:
    sizes = [_text_size(text, NAME_SIZE if i == 0 else ROW_SIZE, i == 0) for i, (text, _) in enumerate(lines)]
    width = max(size[0] for size in sizes) + 2 * PADDING
    return width, _line_height(NAME_SIZE) + (len(lines) - 1) * _line_height(ROW_SIZE) + 2 * PADDING


def _line_height(size: float) -> float:
    return size / 72 * DPI * 1.35


_RULER = RendererAgg(10, 10, DPI)


def _text_size(text: str, size: float, bold: bool = False) -> tuple[float, float]:
    """Width and height in pixels."""
    font = FontProperties(family=_FAMILY, size=size, weight="bold" if bold else "normal")
    width, height, _ = _RULER.get_text_width_height_descent(text or " ", font, False)
    return width, height


def _canvas(width: int, height: int) -> tuple[Figure, matplotlib.axes.Axes]:
    """A white figure of that many pixels, and axes over all of it in pixels from the upper left corner."""
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    axes.patch.set_alpha(0)
    return figure, axes


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


def _draw_box(
    axes: matplotlib.axes.Axes,
    limb: LimbRow,
    lines: Sequence[tuple[str, str]],
    place: np.ndarray,
    size: np.ndarray,
) -> None:
    x, y = place[0] - size[0] / 2, place[1]
    fill = ROOT_FILL if limb.parent_index < 0 else FILL
    style = {"boxstyle": "round,pad=0,rounding_size=5", "facecolor": fill, "edgecolor": EDGE}
    axes.add_patch(FancyBboxPatch((x, y), *size, linewidth=1.2, zorder=2, **style))
    y += PADDING
    for number, (text, colour) in enumerate(lines):
        points = ROW_SIZE if number else NAME_SIZE
        weight = "normal" if number else "bold"
        middle = y + _line_height(points) / 2
        _text(axes, x + PADDING, middle, text, points, color=colour, weight=weight, va="center", zorder=3)
        y += _line_height(points)


def _write(figure: Figure, path: Path) -> tuple[int, int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, format="png")
    return tuple(int(side) for side in figure.canvas.get_width_height())
