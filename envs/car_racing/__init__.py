"""CarRacing, batched, drawn fast, and seen as patches."""

from .scenery import Scenery
from .task import CarRacing, task_from_config

__all__ = ["CarRacing", "Scenery", "task_from_config"]
