"""Algorithms that improve a policy's parameters."""

from .clone import Clone
from .ppo import PPO

__all__ = ["PPO", "Clone"]
