"""Whether a device computes what it should: beside plain launches, and beside the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...envs.locomotion import BodySet
from ...envs.locomotion.on_device.launching import Launcher
from ...envs.locomotion.on_device.warp_models import warp_modules
from ...envs.locomotion.on_device.warp_simulation import WarpSimulation
from .gpu_device import ROUND, body_of, wait
from .gpu_report import Report, Row

STEPS = 5
WORLDS = 8
GRAPH_TOLERANCE = 1e-4
REWARD_TOLERANCE = 1e-3


class PlainLauncher(Launcher):
    """Launches kernels one after another, and records nothing."""

    def _run(self, name: str, work: Callable[[WarpSimulation], None]) -> None:
        warp, _ = warp_modules()
        wait(self._device)  # Warp has a stream of its own here
        with warp.ScopedDevice(str(self._device)):
            for simulation in self._simulations:
                work(simulation)
        wait(self._device)


def check(report: Report, tasks: dict[str, BodySet], device: torch.device) -> None:
    """Compare, and print; what differs by too much is a failure of the report."""
    rows: list[Row] = []
    for task, bodies in tasks.items():
        for what, compare, tolerance in (
            ("graph", graph_differences, GRAPH_TOLERANCE),
            ("rewards", reward_differences, REWARD_TOLERANCE),
        ):
            name = f"check/{what}/{task}"
            found = report.measure(
                name,
                lambda c=compare, n=name, b=bodies, t=tolerance: [
                    {"name": n, "tolerance": t, **c(b, device)}
                ],
            )
            for row in found:
                worst = row["largest_difference"]
                if not worst <= tolerance:  # it may be no number
                    why = f"the largest difference is {worst:.3g}, allowed are {tolerance:g}"
                    report.fail(f"{name}/too_large", why, {"differences": row["differences"]})
            rows += found
    columns = {"largest": ("largest_difference", ".2e"), "allowed": ("tolerance", ".0e")}
    report.table(f"Differences after {STEPS} steps", rows, columns)


def graph_differences(bodies: BodySet, device: torch.device) -> dict[str, Any]:
    """The recorded graph beside plain launches, from the same states by the same actions.

    Args:
        bodies: of which the first and the last are taken.
        device: that simulates.

    Returns:
        Largest absolute differences of observations, rewards, positions and velocities by name.
    """
    env = bodies.make_tensor_env(_two(bodies), WORLDS, device)
    env.reset(seed=0)
    actions = _actions(env, device)
    begin = env.snapshot()
    recorded = _run(env, actions)
    env.restore(begin)
    env._launcher = PlainLauncher([block.sim for block in env._blocks], device)
    plain = _run(env, actions)
    env.close()
    return _differences(recorded, plain)


def _run(env: Any, actions: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for action in actions:
        step = env.step(action)
        found["rewards"] = found.get("rewards", 0) + step.rewards
    found |= {name: value.clone() for name, value in step.observation.items()}
    for index, block in enumerate(env._blocks):
        for name in ("qpos", "qvel"):
            found[f"{name}/{index}"] = block.sim.snapshot()["_state"][name]
    return found


def checked_bodies(bodies: BodySet) -> list[str]:
    """Names, of `body_of`, of those whose rewards are compared."""
    return [f"{ROUND}{name}" for name in _two(bodies)]


def _two(bodies: BodySet) -> list[str]:
    """Two bodies that differ much, or the only one."""
    return list(dict.fromkeys((bodies.seen[0], bodies.seen[-1])))


def reward_differences(bodies: BodySet, device: torch.device) -> dict[str, Any]:
    """Rewards of the device beside those of the CPU's environment, from the same starts.

    Args:
        bodies: of which the first and the last are taken, see `with_round_cones`.
        device: that simulates.

    Returns:
        Largest absolute differences of every step's rewards by name.
    """
    chosen = [body_of(name) for name in checked_bodies(bodies)]
    on_device, on_host = bodies.make_tensor_env(chosen, WORLDS, device), bodies.make_vec(chosen, WORLDS)
    on_device.reset(seed=0)
    on_host.reset(seed=0)
    ours, theirs = {}, {}
    for index, action in enumerate(_actions(on_device, device)):
        ours[f"step_{index}"] = on_device.step(action).rewards.clone()
        theirs[f"step_{index}"] = torch.from_numpy(on_host.step(action.cpu().numpy())[1])
    on_device.close()
    on_host.close()
    return _differences(ours, theirs)


def _actions(env: Any, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (2 * torch.rand(STEPS, *env.action_space.shape, generator=generator) - 1).to(device)


def _differences(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Any]:
    found = {name: float((one[name].cpu().double() - other[name].cpu().double()).abs().max()) for name in one}
    # Python's max passes over what is no number; torch's does not.
    worst = float(torch.tensor(list(found.values()), dtype=torch.float64).max())
    return {"largest_difference": worst, "differences": found}
