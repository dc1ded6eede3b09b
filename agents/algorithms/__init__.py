"""Algorithms that improve a policy's parameters."""

from .ppo import PPO

__all__ = ["PPO"]
