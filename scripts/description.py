"""What ``somite-describe`` does: tables in the terminal, pictures in a folder."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import hydra
import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape

from somite.envs.errors import UserError
from somite.envs.locomotion import BodySet, Morphology
from somite.envs.locomotion.pictures.body_pictures import body_picture, sheet
from somite.envs.locomotion.pictures.describe import Description, describe, start_tokens
from somite.envs.locomotion.pictures.rendering import file_name, find_backend, portrait
from somite.envs.locomotion.simulation import frame_skip_of
from somite.envs.numbers import whole_number

from . import description_tables as tables

PIPED_WIDTH = 120
"""Columns of tables that go to a file or another program."""


def describe_bodies(config: DictConfig) -> None:
    """Prints and draws what ``conf/describe.yaml`` describes.

    Raises:
        UserError: a body, file or number that is not there or cannot be meant.
    """
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, PIPED_WIDTH)
    width, height = (whole_number(config[key], key, minimum=16) for key in ("width", "height"))
    bodies, read_notes = _read(config)
    names = bodies.choose(_plain(config.bodies))
    descriptions = []
    for name in names:
        body = _body(bodies, name)
        skip = bodies.frame_skip or frame_skip_of(body.model)
        told = describe(body, skip)
        told = dataclasses.replace(told, notes=(*told.notes, *bodies.start_notes([name])))
        descriptions.append(told)
        tables.print_description(console, descriptions[-1])
        if config.tokens:
            tables.print_tokens(console, descriptions[-1], start_tokens(body))
    if config.features:
        tables.print_features(console)
    tables.print_notes(console, "note", read_notes)
    if config.pictures:
        _draw(console, bodies, descriptions, Path(str(config.output)), (width, height))


def _plain(value: object) -> object:
    return OmegaConf.to_object(value) if OmegaConf.is_config(value) else value


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
    said = [str(warning.message) for warning in caught]
    return bodies, [text for text in dict.fromkeys(said) if text.startswith("left out")]


def _body(bodies: BodySet, name: str) -> Morphology:
    """A body; what is warned of while its controls are read stands in its description's notes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        body = bodies.morphology(name)
        _ = body.controls
    return body


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
    for description in descriptions:
        rendering = None if why_not else portrait(bodies.morphology(description.name), *size)
        renderings += [] if rendering is None else [rendering]
        path = folder / f"{file_name(description.name)}.png"
        reason = "no rendering: no way to draw on this machine was found" if why_not else ""
        _told(console, path, body_picture(description, rendering, path, reason))
    if len(renderings) > 1:
        path = folder / "sheet.png"
        _told(console, path, sheet([d.name for d in descriptions], renderings, path))


def _told(console: Console, path: Path, size: tuple[int, int]) -> None:
    console.print(f"{escape(str(path))}  {size[0]}×{size[1]} pixels", soft_wrap=True, highlight=False)
