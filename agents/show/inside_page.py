"""A page of pictures measured in pixels, and a body's limbs on it as boxes with arrows between them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from ...envs.locomotion.pictures.body_pictures import tidy_tree

DPI = 100
FAMILY = ["DejaVu Sans"]  # comes with matplotlib, so that sizes are the same everywhere
NAME = 10.0
"""Size of limbs' names in points."""

EDGE, FILL, ROOT_FILL = "#555555", "#F3F3F3", "#FBEFC6"

_RULER = RendererAgg(10, 10, DPI)


class Page:
    """A white figure of so many pixels, measured from its upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = math.ceil(width), math.ceil(height)
        self.figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)
        self._text = self.whole(zorder=5)

    def whole(self, zorder: float = 0) -> Axes:
        """Axes over all of it, in pixels."""
        axes = self.figure.add_axes((0, 0, 1, 1), zorder=zorder)
        axes.set_xlim(0, self.width)
        axes.set_ylim(self.height, 0)
        axes.set_axis_off()
        axes.patch.set_alpha(0)
        return axes

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes of that size, their upper left corner at (x, y)."""
        bottom = 1 - (y + height) / self.height
        return self.figure.add_axes(
            (x / self.width, bottom, width / self.width, height / self.height), zorder=1
        )

    def write(self, text: str, x: float, y: float, size: float, **style: object) -> None:
        """Text whose middle is at height y."""
        style = {"va": "center", "fontsize": size, "fontfamily": FAMILY, "parse_math": False, **style}
        self._text.text(x, y, text, **style)


class LimbBoxes:
    """Where a body's limbs stand as boxes, root on top.

    Args:
        names: of the limbs.
        parents: index of each limb's parent, -1 for a root; parents stand before children.
        gap: pixels between boxes side by side, and between levels.
    """

    def __init__(self, names: Sequence[str], parents: Sequence[int], gap: tuple[float, float]) -> None:
        self._names, self._parents = names, parents
        self.sizes = np.array([[text_width(name, NAME, True) + 18, 26] for name in names])
        self.places, (self.width, self.height) = tidy_tree(parents, self.sizes, gap)

    def boxes(self, axes: Axes, origin: tuple[float, float]) -> None:
        """Draw limbs, their upper left corner at ``origin``, and thin lines along the body."""
        places = self.places + origin
        for limb, (x, y) in enumerate(places):
            width, height = self.sizes[limb]
            fill = ROOT_FILL if self._parents[limb] < 0 else FILL
            style = {"boxstyle": "round,pad=0,rounding_size=5", "facecolor": fill, "edgecolor": EDGE}
            axes.add_patch(
                FancyBboxPatch((x - width / 2, y), width, height, linewidth=1.2, zorder=4, **style)
            )
            text = {"ha": "center", "va": "center", "fontsize": NAME, "fontfamily": FAMILY, "weight": "bold"}
            axes.text(x, y + height / 2, self._names[limb], zorder=5, parse_math=False, **text)
            if self._parents[limb] >= 0:
                above = self._parents[limb]
                ends = np.array([places[above] + (0, self.sizes[above, 1]), (x, y)])
                axes.plot(*ends.T, color=EDGE, linewidth=0.8, linestyle=":", zorder=1)

    def arrow(
        self,
        axes: Axes,
        origin: tuple[float, float],
        start: int,
        end: int,
        width: float,
        colour: str,
        aside: float,
        bend: float = 0.0,
        alpha: float = 0.9,
    ) -> None:
        """An arrow between two limbs, moved ``aside`` to its right in pixels, or bent."""
        places = self.places + origin
        middles = places + np.stack([np.zeros(len(places)), self.sizes[:, 1] / 2], 1)
        first, last = middles[start], middles[end]
        along = (last - first) / max(float(np.linalg.norm(last - first)), 1e-9)
        shift = aside * np.array([-along[1], along[0]])
        # Boxes hide what lies below them: an arrow begins and ends where it leaves and meets one.
        first, last = first + along * self._reach(start, along), last - along * self._reach(end, along)
        axes.add_patch(
            FancyArrowPatch(
                first + shift,
                last + shift,
                connectionstyle=f"arc3,rad={bend}",
                arrowstyle=f"-|>,head_length={4 + 0.9 * width},head_width={2 + 0.7 * width}",
                mutation_scale=1,
                linewidth=width,
                color=colour,
                alpha=alpha,
                shrinkA=0,
                shrinkB=0,
                joinstyle="miter",
                capstyle="butt",
                zorder=2,
            )
        )

    def _reach(self, limb: int, along: np.ndarray) -> float:
        """Pixels from a box's middle to its side in a direction, and a little more."""
        half = self.sizes[limb] / 2
        ratios = [half[axis] / abs(along[axis]) for axis in (0, 1) if abs(along[axis]) > 1e-9]
        return min(ratios) + 4


def text_width(text: str, size: float, bold: bool = False) -> float:
    """In pixels."""
    font = FontProperties(family=FAMILY, size=size, weight="bold" if bold else "normal")
    return _RULER.get_text_width_height_descent(text or " ", font, False)[0]
