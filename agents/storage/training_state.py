"""``training_state/``: what a run goes on from, with a description that tells whether it is whole.

``state.pt`` holds tensors and plain values, read with ``weights_only=True``. ``state.json`` holds the size
and the checksum of that file, how far the run had come, and which versions, device and machine made it.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...envs.errors import UserError
from .paths import command
from .run_folder import list_checkpoints, split_checkpoint, step_of
from .untrusted import read_json

FOLDER = "training_state"
STATE = "state.pt"
DESCRIPTION = "state.json"
FORMAT_VERSION = 1
PACKAGES = ("somite", "torch", "numpy", "mujoco", "gymnasium", "stable-baselines3", "cma")
LARGEST_DESCRIPTION = 2**20
"""Bytes; a larger state.json is none of ours."""


def write_training_state(folder: str | Path, state: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Writes ``state.pt`` and its description.

    Args:
        folder: Where to; it is made. Its parent is to be renamed into place when all of it is written.
        state: Tensors and plain values.
        facts: What the description is to tell beside format, size, checksum and versions, such as how far the
            run has come (``done``) of which key of its algorithm (``of``), the device and the machine.

    Raises:
        OSError: If something cannot be written.
    """
    import torch  # which the command line's help does not need, nor what knows the schema of a policy

    from .policy_json import installed_version

    # In memory first: torch's own writer answers a full disk with another error than the system's.
    file = io.BytesIO()
    torch.save(dict(state), file)
    data = file.getbuffer()
    description = {
        "format": FORMAT_VERSION,
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        **facts,
        "versions": {name: installed_version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
    }
    folder = Path(folder)
    folder.mkdir()
    (folder / STATE).write_bytes(data)
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def read_training_state(checkpoint: str | Path) -> dict[str, Any]:
    """Reads what a run goes on from, after the whole checkpoint has been checked.

    Args:
        checkpoint: ``<run>/checkpoints/<step>``.

    Returns:
        What `write_training_state` was given; runs no code from the file.

    Raises:
        UserError: A file of the checkpoint is missing, truncated, altered or of another format, with the
            checkpoint before it that is whole and the command that goes on from that.
    """
    import torch

    checkpoint = Path(checkpoint)
    fault = find_fault(checkpoint)
    if fault is None:
        try:
            return torch.load(checkpoint / FOLDER / STATE, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            fault = f"{checkpoint / FOLDER / STATE} cannot be read: {reason}"
    raise UserError(f"{fault}; {_advice(checkpoint)}")


def read_facts(checkpoint: str | Path) -> dict[str, Any]:
    """What ``state.json`` says.

    Args:
        checkpoint: ``<run>/checkpoints/<step>``.

    Raises:
        UserError: It is missing or no description of a training state.
    """
    path = Path(checkpoint) / FOLDER / DESCRIPTION
    if not path.is_file():
        raise UserError(f"{path} is missing: the checkpoint is not whole, or of a version without checksums")
    said = read_json(path, LARGEST_DESCRIPTION)
    wanted = {"format": int, "sha256": str, "size": int}
    for name, kind in wanted.items():
        if not isinstance(said, dict) or not isinstance(said.get(name), kind):
            raise UserError(f"{path} is damaged: it has no {name}")
    if said["format"] != FORMAT_VERSION:
        raise UserError(
            f"{path} is of format {said['format']}, this version reads {FORMAT_VERSION}: resume the run with "
            "the version that made it"
        )
    return said


def find_fault(checkpoint: str | Path) -> str | None:
    """What is wrong with the files of a checkpoint, in words; None if all are as they were written.

    Args:
        checkpoint: ``<run>/checkpoints/<step>``.
    """
    from . import policy_json

    checkpoint = Path(checkpoint)
    policy = checkpoint / "policy"
    try:
        said = read_facts(checkpoint)
        of_policy = policy_json.read_description(policy / policy_json.DESCRIPTION)
    except UserError as error:
        return str(error).rstrip(".")
    return _difference(checkpoint / FOLDER / STATE, said["sha256"], said["size"]) or _difference(
        policy / policy_json.TENSORS, str(of_policy["sha256"])
    )


def _difference(path: Path, sha256: str, size: int | None = None) -> str | None:
    try:
        found = path.stat().st_size
        if size is not None and found != size:
            what = "truncated" if found < size else "damaged"
            return f"{path} is {what}: it has {found:,} bytes, {size:,} were written"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    if digest != sha256:
        return f"{path} was altered or truncated: its sha256 is {digest[:12]}, {sha256[:12]} was written"
    return None


def _advice(checkpoint: Path) -> str:
    run, step = split_checkpoint(checkpoint)
    before = list_checkpoints(run) if step is not None else []
    for other in reversed([path for path in before if step_of(path) < step]):
        if find_fault(other) is None:
            return f"{other} is whole; go on from it with: {command('somite-train', resume=other)}"
    return (
        f"{run} has no checkpoint before it that is whole; a new run can begin with what its policy/ or best/"
        " has learnt: somite-train start_from=<folder>"
    )
