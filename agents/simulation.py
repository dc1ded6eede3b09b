"""Where a task is simulated: the key ``simulation``."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from typing import Any

import torch

from ..envs.errors import UserError, nearest
from ..envs.numbers import whole_number
from ..envs.task_set import TaskSet
from .keys import SIMULATIONS

log = logging.getLogger(__name__)

CPU, WARP, TORCH = "cpu", "warp", "torch"
WARP_MODULES = ("warp", "mujoco_warp")
INSTALL_WARP = "pip install 'somite[gpu]'"


def check_simulation(name: str) -> str:
    """The key ``simulation`` of a configuration. Raises UserError: there is no such choice."""
    name = str(name)
    if name not in SIMULATIONS:
        raise UserError(f"simulation cannot be {name!r}; {nearest(name, SIMULATIONS)}")
    return name


def read_places(section: Mapping[str, Any]) -> dict[str, int | None]:
    """The section ``warp`` of a configuration: options of ``make_tensor_env``. Raises UserError."""
    return {
        str(name): None if value is None else whole_number(value, f"warp.{name}", 1)
        for name, value in section.items()
    }


def resolve_simulation(name: str, task_set: TaskSet, device: torch.device, why_not: str | None = None) -> str:
    """Turns the ``simulation`` key of a configuration into where the task is simulated.

    Args:
        name: ``cpu``; ``warp`` (bodies and Gymnasium's MuJoCo tasks) or ``torch`` (the swing-up) on the
            learner's device; ``auto``: on a GPU the task's own if it can, else ``cpu``, which is logged with
            the reason.
        task_set: what is simulated.
        device: of the learner.
        why_not: half a sentence, why the algorithm cannot do with it; None: it can.

    Returns:
        ``cpu``, or ``task_set.device_simulation``.

    Raises:
        UserError: an unknown name; or one that was asked for and cannot be.
    """
    name = check_simulation(name)
    if name == CPU or (name == "auto" and device.type == "cpu"):
        return CPU
    own = task_set.device_simulation
    if name != "auto" and own is None:
        why_not = task_set.why_not_on_device()
        raise UserError(
            f"simulation={name} was asked for, but {why_not}: use simulation=cpu or simulation=auto"
        )
    if name != "auto" and name != own:
        raise UserError(_of_another_task(name, own))
    why_not = why_not or task_set.why_not_on_device() or (_why_no_warp(device) if own == WARP else None)
    if why_not is None:
        slow = ", by the kernels made for a GPU, slowly" if device.type == "cpu" else ""
        log.info("simulation: %s on %s%s", own, device, slow)
        return own
    if name == "auto":
        log.info("simulation: cpu (%s)", why_not)
        return CPU
    raise UserError(f"simulation={name} was asked for, but {why_not}. Or use simulation=cpu.")


def _of_another_task(name: str, own: str) -> str:
    asked = f"simulation={name} was asked for, but this task"
    return f"{asked} is simulated by {own} on a device: use simulation={own}, cpu or auto"


def _why_no_warp(device: torch.device) -> str | None:
    """Half a sentence, if MuJoCo Warp cannot be used; None: it can."""
    if any(importlib.util.find_spec(module) is None for module in WARP_MODULES):
        return f"Warp is not installed: {INSTALL_WARP}"
    if device.type == "cpu":
        return None
    import warp  # which takes a second, and is not always there

    warp.init()
    if warp.get_cuda_device_count() > (device.index or 0):
        return None
    return f"Warp {warp.__version__} sees no {device}, perhaps for a driver that is too old for it"
