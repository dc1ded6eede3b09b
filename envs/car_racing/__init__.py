"""CarRacing, batched, drawn fast, and seen as patches."""

from .scenery import Scenery
from .task import CarRacing

__all__ = ["CarRacing", "Scenery"]
