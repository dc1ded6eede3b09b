"""Algorithms that improve a policy's parameters."""

from .clone import Clone
from .cma_es import CMAES
from .ppo import PPO

__all__ = ["CMAES", "PPO", "Clone"]
