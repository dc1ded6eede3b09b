"""Tells what bodies are made of: tables in the terminal, pictures in a folder.

Names come from files: none is read as markup. ``python -m somite.scripts.cli.description`` prints the
tables of ``docs/limb_observation.md``.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ...agents.composition import make_task
from ...envs.errors import UserError
from ...envs.locomotion import LIMB_SPEC, BodySet
from ...envs.locomotion.backends import frame_skip_of
from ...envs.locomotion.pictures.body_pictures import body_picture, sheet
from ...envs.locomotion.pictures.describe import Description, JointRow, describe, start_tokens
from ...envs.locomotion.pictures.rendering import file_name, find_backend, portrait
from ...envs.tokens import Feature

PIPED_WIDTH = 120
"""Columns of tables that go to a file or another program."""


def describe_bodies(config: DictConfig) -> None:
    """Prints and draws what ``conf/describe.yaml`` describes.

    Raises:
        UserError: A body, file or number that is not there or not valid.
    """
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, PIPED_WIDTH)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bodies = make_task(config)
    if bodies.kind != "limbs":
        raise UserError(
            f"somite-describe tells of bodies, and {bodies.name} has none, only {bodies.kind}: "
            "give env=ant, another body, or env.morphology=<file>"
        )
    wanted = OmegaConf.to_object(config.bodies) if OmegaConf.is_config(config.bodies) else config.bodies
    descriptions = []
    for name in bodies.choose(wanted):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is warned of stands in the description's notes
            body = bodies.morphology(name)
            _ = body.controls
        told = describe(body, bodies.set_of(body).frame_skip or frame_skip_of(body.model))
        told = dataclasses.replace(told, notes=(*told.notes, *bodies.start_notes([name])))
        descriptions.append(told)
        console.print(_limb_table(told))
        console.print(Text("; ".join(told.totals)), soft_wrap=True)
        _print_notes(console, told.notes)
        console.print()
        if config.tokens:
            _print_tokens(console, told, start_tokens(body))
    if config.features:
        for part, features in (("limb: tokens", LIMB_SPEC.token), ("joint row: joints", LIMB_SPEC.joint)):
            title = f"What is observed of a {part}"
            table = _table(title, "columns", "feature", "kind", "unit", "meaning")
            for columns, feature in _numbered(features):
                table.add_row(columns, feature.name, feature.kind, feature.unit, feature.meaning)
            console.print(table)
    said = dict.fromkeys(str(warning.message) for warning in caught)
    _print_notes(console, [text for text in said if text.startswith("left out")])
    if config.pictures:
        size = config.width, config.height
        _draw(console, bodies, descriptions, Path(str(config.output)), size)


def _limb_table(description: Description) -> Table:
    """A line for each limb, and below it one for each of its joint rows."""
    table = _table(Text(description.name, "bold"))
    columns = ("limb, its joint rows", "parent; kind", "mass; range", "size; driven by", "merged; control")
    for n, column in enumerate(columns):
        table.add_column(column, overflow="fold", min_width=None if n else 18)
    table.add_column("strength", justify="right", overflow="fold")
    for limb in description.limbs:
        size = " × ".join(f"{side:.2g}" for side in limb.size)
        merged = f"with {', '.join(limb.merged)}" if limb.merged else ""
        cells = (limb.name, limb.parent or "(root)", f"{limb.mass:.3g} kg", f"{size} m", merged, "")
        table.add_row(*(Text(cell, "bold") for cell in cells))
        for joint in limb.joints:
            table.add_row(*map(Text, _joint_cells(joint)))
    return table


def _joint_cells(joint: JointRow) -> tuple[str, ...]:
    """Name, kind, range, actuator, control range and strength."""
    limits = "unlimited" if joint.limits is None else f"{_interval(joint.limits)} {joint.unit}"
    actuator, cells = joint.actuator, (f"  {joint.name}", joint.kind, limits)
    if actuator is None:
        return *cells, "-", "", ""
    unit = "" if actuator.control_unit == "1" else f" {actuator.control_unit}"
    driven = actuator.kind if actuator.name == joint.name else f"{actuator.kind} {actuator.name}"
    strength = f"{actuator.strength:.3g} {actuator.strength_unit}"
    return *cells, driven, f"{_interval(actuator.control)}{unit}", strength


def _interval(limits: tuple[float, float]) -> str:
    return f"{limits[0]:.3g} to {limits[1]:.3g}"


def _print_notes(console: Console, notes: Sequence[str]) -> None:
    for note in notes:
        console.print(Text.assemble(("note: ", "yellow"), note), soft_wrap=True)


def _print_tokens(console: Console, description: Description, tokens: np.ndarray) -> None:
    """What each limb observes in the start pose, (N, F), at rest: a line for each feature of each limb."""
    for limb, values in zip(description.limbs, tokens, strict=True):
        title = Text(f"{description.name}, {limb.name}: tokens in the start pose")
        table = _table(title, "columns", "feature", "value", "unit")
        for columns, feature in _numbered(LIMB_SPEC.token):
            shown = values[LIMB_SPEC.token_slice(feature.name)]
            table.add_row(columns, feature.name, " ".join(f"{v:.3g}" for v in shown), feature.unit)
        console.print(table)


def _table(title: str | Text, *columns: str) -> Table:
    return Table(*columns, title=title, title_justify="left", box=SIMPLE, pad_edge=False)


def _numbered(features: Sequence[Feature]) -> list[tuple[str, Feature]]:
    """Each feature with its columns."""
    rows, start = [], 0
    for feature in features:
        end = start + feature.size - 1
        rows.append((f"{start}" if feature.size == 1 else f"{start} to {end}", feature))
        start = end + 1
    return rows


def _draw(
    console: Console, bodies: BodySet, descriptions: list[Description], folder: Path, size: Sequence[int]
) -> None:
    """One picture of each body, and all of them on a sheet where there are several."""
    reason, renderings, drawn = "", [], []
    try:
        find_backend()
    except UserError as error:
        reason = "no rendering: no way to draw on this machine was found"
        console.print(f"[yellow]limb graphs only:[/] {escape(str(error))}", soft_wrap=True)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output={folder} is a file; give the name of a folder for the pictures")
    for description in descriptions:
        rendering = None if reason else portrait(bodies.morphology(description.name), *size)
        renderings += [] if rendering is None else [rendering]
        path = folder / f"{file_name(description.name)}.png"
        drawn.append((path, body_picture(description, rendering, path, reason)))
    if len(renderings) > 1:
        path = folder / "sheet.png"
        drawn.append((path, sheet([d.name for d in descriptions], renderings, path)))
    for path, (width, height) in drawn:
        console.print(f"{escape(str(path))}  {width}×{height} pixels", soft_wrap=True, highlight=False)


def limb_tables() -> list[str]:
    """The tables of ``docs/limb_observation.md``: of ``tokens`` and of ``joints``."""
    tables = []
    for features in (LIMB_SPEC.token, LIMB_SPEC.joint):
        lines = ["| columns | feature | kind | unit | meaning |", "|---|---|---|---|---|"]
        for columns, f in _numbered(features):
            lines.append(f"| {columns} | `{f.name}` | {f.kind} | {f.unit} | {f.meaning} |")
        tables.append("\n".join(lines))
    return tables


if __name__ == "__main__":
    print("\n\n".join(limb_tables()))
