"""Tells what bodies are made of: tables in the terminal, pictures in a folder.

Names come from files: none is read as markup. ``python -m somite.scripts.cli.description`` prints the
tables of ``docs/limb_observation.md``.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path

import hydra
import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ...envs.errors import UserError
from ...envs.locomotion import LIMB_SPEC, BodySet, Morphology
from ...envs.locomotion.backends import frame_skip_of
from ...envs.locomotion.pictures.body_pictures import body_picture, sheet
from ...envs.locomotion.pictures.describe import (
    ActuatorRow,
    Description,
    JointRow,
    LimbRow,
    describe,
    start_tokens,
)
from ...envs.locomotion.pictures.rendering import file_name, find_backend, portrait
from ...envs.numbers import whole_number
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
    width, height = (whole_number(config[key], key, minimum=16) for key in ("width", "height"))
    bodies, read_notes = _read(config)
    wanted = OmegaConf.to_object(config.bodies) if OmegaConf.is_config(config.bodies) else config.bodies
    descriptions = []
    for name in bodies.choose(wanted):
        body = _body(bodies, name)
        told = describe(body, bodies.frame_skip or frame_skip_of(body.model))
        told = dataclasses.replace(told, notes=(*told.notes, *bodies.start_notes([name])))
        descriptions.append(told)
        console.print(limb_table(told))
        console.print(Text("; ".join(told.totals)), soft_wrap=True)
        _print_notes(console, told.notes)
        console.print()
        if config.tokens:
            _print_tokens(console, told, start_tokens(body))
    for title, features in (
        (("limb: tokens", LIMB_SPEC.token), ("joint row: joints", LIMB_SPEC.joint)) if config.features else ()
    ):
        table = _table(f"What is observed of a {title}", "columns", "feature", "kind", "unit", "meaning")
        for columns, feature in _numbered(features):
            table.add_row(columns, feature.name, feature.kind, feature.unit, feature.meaning)
        console.print(table)
    _print_notes(console, read_notes)
    if config.pictures:
        _draw(console, bodies, descriptions, Path(str(config.output)), (width, height))


def _read(config: DictConfig) -> tuple[BodySet, list[str]]:
    """The bodies of the configuration, and what was said about files that are none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bodies = hydra.utils.instantiate(config.env, _convert_="all")
    if bodies.kind != "limbs":
        raise UserError(
            f"somite-describe tells of bodies, and {bodies.name} has none, only {bodies.kind}: "
            "give env=ant, another body, or env.morphology=<file>"
        )
    said = dict.fromkeys(str(warning.message) for warning in caught)
    return bodies, [text for text in said if text.startswith("left out")]


def _body(bodies: BodySet, name: str) -> Morphology:
    """A body; what is warned of while its controls are read stands in its description's notes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        body = bodies.morphology(name)
        _ = body.controls
    return body


def limb_table(description: Description) -> Table:
    """A line for each limb, and below it one for each of its joint rows."""
    table = _table(Text(description.name, "bold"))
    for n, column in enumerate(
        ("limb, its joint rows", "parent; kind", "mass; range", "size; driven by", "merged; control")
    ):
        table.add_column(column, overflow="fold", min_width=None if n else 18)
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
    console: Console, bodies: BodySet, descriptions: list[Description], folder: Path, size: tuple[int, int]
) -> None:
    """One picture of each body, and all of them on a sheet where there are several."""
    why_not = ""
    try:
        find_backend()
    except UserError as error:
        why_not = str(error)
        console.print(f"[yellow]limb graphs only:[/] {escape(why_not)}", soft_wrap=True)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output={folder} is a file; give the name of a folder for the pictures")
    renderings: list[np.ndarray] = []

    def tell(path: Path, size: tuple[int, int]) -> None:
        console.print(f"{escape(str(path))}  {size[0]}×{size[1]} pixels", soft_wrap=True, highlight=False)

    for description in descriptions:
        rendering = None if why_not else portrait(bodies.morphology(description.name), *size)
        renderings += [] if rendering is None else [rendering]
        path = folder / f"{file_name(description.name)}.png"
        reason = "no rendering: no way to draw on this machine was found" if why_not else ""
        tell(path, body_picture(description, rendering, path, reason))
    if len(renderings) > 1:
        path = folder / "sheet.png"
        tell(path, sheet([d.name for d in descriptions], renderings, path))


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
