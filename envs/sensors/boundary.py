"""What a Gymnasium environment gives, checked against what it declares, and read sensor by sensor."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from ..errors import EnvironmentFault, UserError, shown

MOST_SENSORS = 10_000
"""Numbers of an observation: each becomes a token."""

PICTURE = (
    "pictures alone are read by env=gymnasium_image, numbers alone by env=gymnasium: give one of them, such "
    "as by gymnasium.wrappers.FilterObservation in a module of yours"
)


class Boundary:
    """Resets and steps environments of one kind; whatever they give that does not fit is told at once.

    Args:
        name: of the environment, for messages.
        space: of its observations.
    """

    def __init__(self, name: str, space: spaces.Space) -> None:
        self._name, self._space = name, space

    def reset(self, env: gymnasium.Env, seed: int) -> Any:
        """The first observation. Raises EnvironmentFault: it is another, or not (observation, info)."""
        return self._parts("reset()", env.reset(seed=seed), ("observation", "info"))[0]

    def step(self, env: gymnasium.Env, action: Any) -> tuple[Any, float, bool, bool]:
        """Observation, reward, terminated and truncated. Raises EnvironmentFault: something else came."""
        names = ("observation", "reward", "terminated", "truncated", "info")
        observation, reward, terminated, truncated = self._parts("step()", env.step(action), names)
        return (
            observation,
            reward if type(reward) is float else float(self._one("reward", reward)),
            terminated if type(terminated) is bool else self._flag("terminated", terminated),
            truncated if type(truncated) is bool else self._flag("truncated", truncated),
        )

    def _parts(self, method: str, given: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
        """What a method gave but for the info, the observation checked."""
        told, wanted = f"{self._name}: {method} gave", f"({', '.join(names)})"
        if not isinstance(given, tuple) or len(given) != len(names):
            is_old = isinstance(given, tuple) and len(names) == 5 and len(given) == 4
            old = ", as Gym did before version 0.26" * is_old
            raise EnvironmentFault(f"{told} {_described(given)}{old}; expected {wanted}")
        if not isinstance(given[-1], Mapping):
            raise EnvironmentFault(f"{told} {_described(given[-1])} as info; expected a dictionary")
        return checked_observation(self._space, given[0], told), *given[1:-1]

    def _flag(self, what: str, value: Any) -> bool:
        return bool(self._one(what, value, "iub", "True or False"))

    def _one(self, what: str, value: Any, kinds: str = "fiub", wanted: str = "one number") -> Any:
        array = _array(value)
        one = array.item() if array is not None and array.size == 1 and array.dtype.kind in kinds else None
        if one is None or ("f" not in kinds and one not in (0, 1)):
            raise EnvironmentFault(f"{self._name} gave {_described(value)} as {what}; expected {wanted}")
        return one


def check_methods(env: gymnasium.Env) -> None:
    """Refuses an environment without spaces, or whose ``reset`` takes no seed. Raises EnvironmentFault."""
    name = env.spec.id
    for what in ("observation_space", "action_space"):
        space = getattr(env, what, None)
        if not isinstance(space, spaces.Space):
            raise EnvironmentFault(
                f"{name} declares {_described(space)} as {what}; expected a gymnasium.spaces.Space"
            )
    taken = inspect.signature(env.unwrapped.reset).parameters.values()
    if not any(p.name == "seed" or p.kind == p.VAR_KEYWORD for p in taken):
        raise EnvironmentFault(
            f"{name}: reset() takes no seed; expected reset(self, *, seed=None, options=None)"
        )


def checked_observation(space: spaces.Space, value: Any, said: str) -> Any:
    """An observation, arrays in place of what stands for them.

    Args:
        space: that was declared.
        value: that came.
        said: how the message begins: which environment's method gave it.

    Raises:
        EnvironmentFault: another shape or type, a key that is missing, a value that is none of the choices.
    """
    if isinstance(space, spaces.Dict):
        keys = space.spaces
        if not isinstance(value, Mapping):
            raise EnvironmentFault(f"{said} {_described(value)}; declared is a Dict of {_listed(keys)}")
        missing = [key for key in keys if key not in value]
        if missing:
            told = f"{_listed(value)} without {_listed(missing)}"
            raise EnvironmentFault(f"{said} {told}, which its space declares")
        return {k: checked_observation(s, value[k], f"{said}, for {k!r},") for k, s in keys.items()}
    if isinstance(space, spaces.Tuple):
        if not isinstance(value, (tuple, list)) or len(value) != len(space.spaces):
            raise EnvironmentFault(f"{said} {_described(value)}; declared is a Tuple of {len(space.spaces)}")
        pairs = enumerate(zip(space.spaces, value, strict=True))
        return tuple(checked_observation(s, one, f"{said}, for entry {i},") for i, (s, one) in pairs)
    array, declared = _array(value), f"as observation; declared is {shown(space, 300)}"
    single = isinstance(space, spaces.Discrete)
    shape = () if single else space.shape
    fits = array is not None and (array.shape == shape or (single and array.size == 1))
    if not fits or array.dtype.kind not in "fiub":
        raise EnvironmentFault(f"{said} {_described(value)} {declared}")
    if isinstance(space, spaces.Box):
        if space.dtype == np.uint8 and array.dtype != np.uint8:
            is_whole = array.dtype.kind in "iu"
            if not is_whole or array.min(initial=0) < 0 or array.max(initial=0) > 255:
                wanted = "declared are whole numbers of 0 to 255, uint8"
                raise EnvironmentFault(f"{said} {_described(value)}; {wanted}")
        return array
    low, counts = choices_of(space)
    array = array.reshape(shape)
    if not np.all((array >= low) & (array < low + counts) & (array == np.floor(array))):
        raise EnvironmentFault(f"{said} {shown(array.tolist())} {declared}")
    return array.astype(np.int64)


def choices_of(space: spaces.Space) -> tuple[np.ndarray, np.ndarray]:
    """Of each decision, its first choice and how many there are, both of the space's shape."""
    if isinstance(space, spaces.MultiBinary):
        return np.zeros(space.shape, np.int64), np.full(space.shape, 2)
    if isinstance(space, spaces.Discrete):
        return np.asarray(space.start, np.int64), np.asarray(space.n, np.int64)
    return np.asarray(space.start, np.int64), np.asarray(space.nvec, np.int64)


class Sensors:
    """An observation as one vector: each number of it is a sensor with a name.

    The numbers of a ``Box`` are sensors as they are, so are those of ``MultiBinary``. A reading of
    ``Discrete``, and each of ``MultiDiscrete``, is one-hot: a sensor for every choice. ``Dict`` and ``Tuple``
    are what is in them, at any depth: ``position_0``, ``goal.hand_2``, ``gear=3``.

    Args:
        name: of the environment, for messages.
        space: of its observations.

    Attributes:
        names: of the S sensors.

    Raises:
        UserError: a space that holds anything else, such as pictures or text, or nothing.
    """

    def __init__(self, name: str, space: spaces.Space) -> None:
        self._env, self._space = name, copy.deepcopy(space)
        self.names = tuple(self._named(self._space, ""))
        if len(set(self.names)) < len(self.names):
            self.names = tuple(f"{one}#{i}" for i, one in enumerate(self.names))
        if not self.names:
            raise UserError(f"{name} observes {shown(space, 300)}, which is nothing")

    def read(self, value: Any, into: np.ndarray) -> None:
        """The S numbers of an observation that `checked_observation` gave, into a row (S,) of float32."""
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and told
            into[:] = spaces.flatten(self._space, value)

    def _named(self, space: spaces.Space, where: str) -> Iterator[str]:
        """Names of the sensors of a part, in the order of `spaces.flatten`."""
        if isinstance(space, spaces.Dict | spaces.Tuple):
            pairs = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
            for key, inner in pairs:
                yield from self._named(inner, f"{where}.{key}" if where else str(key))
            return
        told = f"{self._env} observes{f' for {where!r}' if where else ''} {shown(space, 300)}"
        is_box = isinstance(space, spaces.Box)
        if is_box and len(space.shape) > (1 if space.dtype == np.uint8 else 2):
            raise UserError(f"{told}, which is a picture; {PICTURE}")
        if not is_box and not isinstance(space, (spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)):
            raise UserError(
                f"{told}; sensors are read from Box, Discrete, MultiDiscrete, MultiBinary, and from Dict and "
                "Tuple of these"
            )
        base = where if where and not where.isdecimal() else f"obs_{where}" if where else "obs"
        places = [base + "".join(f"_{i}" for i in index) for index in np.ndindex(*space.shape)]
        if is_box or isinstance(space, spaces.MultiBinary):
            space.dtype = np.dtype(np.float32)  # or else `spaces.flatten` cuts fractions and NaN off
            self._check_count(len(places))
            yield from places
            return
        low, counts = (part.reshape(-1) for part in choices_of(space))
        self._check_count(int(counts.sum()))
        for place, first, count in zip(places, low, counts, strict=True):
            yield from (f"{place}={first + i}" for i in range(count))

    def _check_count(self, count: int) -> None:
        if count > MOST_SENSORS:
            raise UserError(
                f"{self._env} observes {count:,} numbers at once, each of which would be a token; at most "
                f"{MOST_SENSORS:,} are read"
            )


def _array(value: Any) -> np.ndarray | None:
    """As NumPy takes it; None where it does not."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # ragged lists, tensors of a GPU
        return None


def _described(value: Any) -> str:
    """What came, in a few words."""
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}" if len(value) != 1 else "a tuple of one"
    if isinstance(value, (np.ndarray, np.generic)) and np.ndim(value):
        return f"an array of shape {np.shape(value)}, {value.dtype},"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "an infinite number"
    if isinstance(value, Mapping):
        return f"a dictionary of {_listed(value)}"
    return "None" if value is None else f"{shown(repr(value))} ({type(value).__name__})"


def _listed(names: Any) -> str:
    return shown(", ".join(map(repr, names)) or "nothing", 300)
