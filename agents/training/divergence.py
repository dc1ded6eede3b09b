"""Simulations that diverge: single ones end their episodes, too many of them end the run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .faults import RunFault


def check_physics(
    diverged: np.ndarray,
    steps: np.ndarray,
    bodies: Sequence[str],
    most: float,
    when: str,
    has_physics: bool = True,
) -> None:
    """Refuses to go on with a body whose simulation diverges again and again.

    Args:
        diverged: (M,) steps of each body in which its simulation diverged.
        steps: (M,) steps of each body.
        bodies: their names.
        most: the share of a body's steps that may.
        when: they were made, for the message.
        has_physics: whether it is a simulation of ours, or an environment that gave NaN.

    Raises:
        RunFault: more did.
    """
    shares = diverged / np.maximum(steps, 1)  # shares: (M,)
    worst = int(shares.argmax())
    if shares[worst] > most:
        of = f"in {shares[worst]:.1%} of the steps of {when}, more than algorithm.max_diverged={most:g}"
        if not has_physics:
            raise RunFault(
                f"{bodies[worst]} gave rewards or observations that are NaN, infinite or too large for "
                f"float32 {of}: the first of them is in the log; it is the environment that has to be mended"
            )
        raise RunFault(
            f"the simulation of {bodies[worst]} diverged {of}: its time step may be too long for it, or its "
            "actuators too strong"
        )
