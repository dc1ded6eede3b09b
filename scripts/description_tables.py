"""Descriptions of bodies as tables in the terminal. Names come from files: none is read as markup."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from somite.envs.locomotion import LIMB_SPEC
from somite.envs.locomotion.pictures.describe import ActuatorRow, Description, JointRow, LimbRow
from somite.envs.tokens import Feature


def print_description(console: Console, description: Description) -> None:
    """The limbs with their joint rows, the totals, and what was left out or changed."""
    console.print(limb_table(description))
    console.print(Text("; ".join(description.totals)), soft_wrap=True)
    print_notes(console, "note", description.notes)
    console.print()


def print_notes(console: Console, what: str, notes: Sequence[str]) -> None:
    """One line each."""
    for note in notes:
        console.print(Text.assemble((f"{what}: ", "yellow"), note), soft_wrap=True)


def limb_table(description: Description) -> Table:
    """A line for each limb, and below it one for each of its joint rows."""
    table = Table(title=Text(description.name, "bold"), title_justify="left", box=SIMPLE, pad_edge=False)
    table.add_column("limb, its joint rows", overflow="fold", min_width=18)
    table.add_column("parent; kind", overflow="fold")
    table.add_column("mass; range", overflow="fold")
    table.add_column("size; driven by", overflow="fold")
    table.add_column("merged; control", overflow="fold")
    table.add_column("strength", justify="right", overflow="fold")
    for limb in description.limbs:
        table.add_row(*(Text(cell, "bold") for cell in limb_cells(limb)))
        for joint in limb.joints:
            table.add_row(*(Text(cell) for cell in joint_cells(joint)))
    return table


def limb_cells(limb: LimbRow) -> tuple[str, ...]:
    """Name, parent, mass, size, merged bodies and nothing."""
    size = " × ".join(f"{side:.2g}" for side in limb.size)
    merged = f"with {', '.join(limb.merged)}" if limb.merged else ""
    return limb.name, limb.parent or "(root)", f"{limb.mass:.3g} kg", f"{size} m", merged, ""


def joint_cells(joint: JointRow) -> tuple[str, ...]:
    """Name, kind, range, actuator, control range and strength."""
    limits = "unlimited" if joint.limits is None else f"{_interval(joint.limits)} {joint.unit}"
    return f"  {joint.name}", joint.kind, limits, *_actuator_cells(joint.actuator, joint.name)


def _actuator_cells(actuator: ActuatorRow | None, joint: str) -> tuple[str, str, str]:
    if actuator is None:
        return "-", "", ""
    unit = "" if actuator.control_unit == "1" else f" {actuator.control_unit}"
    strength = f"{actuator.strength:.3g} {actuator.strength_unit}"
    driven = actuator.kind if actuator.name == joint else f"{actuator.kind} {actuator.name}"
    return driven, f"{_interval(actuator.control)}{unit}", strength


def _interval(limits: tuple[float, float]) -> str:
    return f"{limits[0]:.3g} to {limits[1]:.3g}"


def print_features(console: Console) -> None:
    """The columns of ``tokens`` and ``joints``."""
    for title, features in (("limb: tokens", LIMB_SPEC.token), ("joint row: joints", LIMB_SPEC.joint)):
        title = f"What is observed of a {title}"
        table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
        for column in ("columns", "feature", "kind", "unit", "meaning"):
            table.add_column(column)
        for columns, feature in _numbered(features):
            table.add_row(columns, feature.name, feature.kind, feature.unit, feature.meaning)
        console.print(table)


def print_tokens(console: Console, description: Description, tokens: np.ndarray) -> None:
    """What each limb observes in the start pose, (N, F), at rest: a line for each feature of each limb."""
    for limb, values in zip(description.limbs, tokens, strict=True):
        title = Text(f"{description.name}, {limb.name}: tokens in the start pose")
        table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
        for column in ("columns", "feature", "value", "unit"):
            table.add_column(column)
        for columns, feature in _numbered(LIMB_SPEC.token):
            shown = values[LIMB_SPEC.token_slice(feature.name)]
            table.add_row(columns, feature.name, " ".join(f"{v:.3g}" for v in shown), feature.unit)
        console.print(table)


def _numbered(features: Sequence[Feature]) -> list[tuple[str, Feature]]:
    """Each feature with its columns."""
    rows, start = [], 0
    for feature in features:
        end = start + feature.size - 1
        rows.append((f"{start}" if feature.size == 1 else f"{start} to {end}", feature))
        start = end + 1
    return rows
