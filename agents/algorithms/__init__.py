"""Algorithms that improve a policy's parameters."""

from .clone import Clone
from .cma_es import CMAES
from .es import ES
from .ppo import PPO

__all__ = ["CMAES", "ES", "PPO", "Clone"]
