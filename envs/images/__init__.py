"""Pictures as sets of patches, of any Gymnasium environment that shows them."""

from .task import GymnasiumImage

__all__ = ["GymnasiumImage"]
