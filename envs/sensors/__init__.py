"""Tasks read by scalar sensors, each of which is a token, and what may be done to these senses."""

from .cartpole_swingup import CartPoleSwingUp
from .env import SensorEnv
from .gymnasium_task import GymnasiumTask
from .senses import Senses
from .source import Source
from .task import SensorTask

__all__ = ["CartPoleSwingUp", "GymnasiumTask", "SensorTask", "SensorEnv", "Senses", "Source"]
