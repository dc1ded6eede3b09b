"""Locomotion on a device: bodies simulated by MuJoCo Warp, observed and judged there."""

from __future__ import annotations

from .env import LocomotionTensorEnv

__all__ = ["LocomotionTensorEnv"]
