"""How rows are spread over bodies, what their token sets look like, and where their episodes start."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import UserError
from .bodies import families
from .bodies.morphology import Morphology
from .task import LocomotionTask


def spread_rows(
    bodies: Sequence[str | Morphology] | str | Morphology, num_envs: int | None
) -> tuple[tuple[Morphology, ...], np.ndarray]:
    """Bodies, and which of them each row is of; rows of a body lie together.

    Args:
        bodies: names or morphologies.
        num_envs: B; None: one for each body.

    Returns:
        The morphologies, and their index for each row (B,).

    Raises:
        UserError: no body, an unknown one, or fewer rows than bodies.
    """
    named = [bodies] if isinstance(bodies, (str, Morphology)) else list(bodies)
    if not named:
        raise UserError("no body given; at least one is needed")
    built = tuple(families.build(body) if isinstance(body, str) else body for body in named)
    num_envs = len(built) if num_envs is None else int(num_envs)
    if num_envs < len(built):
        raise UserError(f"{num_envs} environments cannot hold {len(built)} bodies")
    counts = [len(part) for part in np.array_split(np.arange(num_envs), len(built))]
    return built, np.repeat(np.arange(len(built)), counts)


def padded_sizes(bodies: Sequence[Morphology], aligned: bool) -> tuple[int, int]:
    """Limbs and joint slots (N, J) that token sets of these bodies are padded to.

    Args:
        bodies: of all rows.
        aligned: limbs stand where the family's full body has them.

    Raises:
        UserError: aligned bodies of several families.
    """
    sized = [b.full_body or b for b in bodies] if aligned else bodies
    if aligned and len({body.name for body in sized}) > 1:
        raise UserError(
            "aligned slots need bodies of one family; got those of "
            + ", ".join(sorted({body.name for body in sized}))
        )
    return max(b.n_limbs for b in sized), max(b.n_joints for b in sized)


def draw_moves(
    task: LocomotionTask, nq: int, nv: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """How a start differs from a body's own: in positions (nq,), and speeds (nv,)."""
    moves = rng.uniform(-task.reset_noise, task.reset_noise, nq)
    noise = task.reset_speed_noise
    speeds = (
        rng.uniform(-noise, noise, nv) if task.speed_noise == "uniform" else noise * rng.standard_normal(nv)
    )
    return moves, speeds
