"""Environments whose observations are sets of tokens. Importing this registers them with Gymnasium."""

import gymnasium

from .errors import UserError

__all__ = ["UserError"]

gymnasium.register(
    id="somite/Locomotion-v0",
    entry_point="somite.envs.locomotion.gym:BodyEnv",
    vector_entry_point="somite.envs.locomotion.gym:make_vec",
    disable_env_checker=True,  # each token set is checked by our tests; the checker runs on every make
)

gymnasium.register(
    id="somite/CarRacing-v0",
    entry_point="somite.envs.car_racing.task:RacingEnv",
    vector_entry_point="somite.envs.car_racing.task:make_vec",
    disable_env_checker=True,
)

gymnasium.register(
    id="somite/CartPoleSwingUp-v0",
    entry_point="somite.envs.sensors.cartpole_swingup:SwingUpEnv",
    vector_entry_point="somite.envs.sensors.cartpole_swingup:make_swingup_vec",
    disable_env_checker=True,
)
