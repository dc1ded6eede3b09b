"""What a Gymnasium environment gives, checked against what it declares, and read sensor by sensor."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
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
        given = env.reset(seed=seed)
        if not isinstance(given, tuple) or len(given) != 2:
            raise self._error("reset()", _described(given), "(observation, info)")
        self._check_info("reset()", given[1])
        return self._observation("reset()", given[0])

    def step(self, env: gymnasium.Env, action: Any) -> tuple[Any, float, bool, bool]:
        """Observation, reward, terminated and truncated. Raises EnvironmentFault: something else came."""
        given = env.step(action)
        if not isinstance(given, tuple) or len(given) != 5:
            old = ", as Gym did before version 0.26" * (isinstance(given, tuple) and len(given) == 4)
            wanted = "(observation, reward, terminated, truncated, info)"
            raise self._error("step()", f"{_described(given)}{old}", wanted)
        observation, reward, terminated, truncated, info = given
        self._check_info("step()", info)
        return (
            self._observation("step()", observation),
            reward if type(reward) is float else self._number(reward),
            terminated if type(terminated) is bool else self._flag("terminated", terminated),
            truncated if type(truncated) is bool else self._flag("truncated", truncated),
        )

    def _observation(self, method: str, value: Any) -> Any:
        return checked_observation(self._space, value, f"{self._name}: {method} gave")

    def _number(self, value: Any) -> float:
        array = _array(value)
        if array is None or array.size != 1 or array.dtype.kind not in "fiub":
            raise EnvironmentFault(f"{self._name} gave {_described(value)} as reward; expected one number")
        return float(array.reshape(()))

    def _flag(self, what: str, value: Any) -> bool:
        array = _array(value)
        if array is None or array.size != 1 or array.dtype.kind not in "iub" or array.item() not in (0, 1):
            raise EnvironmentFault(f"{self._name} gave {_described(value)} as {what}; expected True or False")
        return bool(array.item())

    def _check_info(self, method: str, info: Any) -> None:
        if not isinstance(info, Mapping):
            raise self._error(method, f"{_described(info)} as info", "a dictionary")

    def _error(self, method: str, came: str, wanted: str) -> EnvironmentFault:
        return EnvironmentFault(f"{self._name}: {method} gave {came}; expected {wanted}")


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
        if not isinstance(value, Mapping):
            raise EnvironmentFault(
                f"{said} {_described(value)}; declared is a Dict of {_listed(space.spaces)}"
            )
        missing = [key for key in space.spaces if key not in value]
        if missing:
            raise EnvironmentFault(
                f"{said} {_listed(value)} without {_listed(missing)}, which its space declares"
            )
        inner = space.spaces.items()
        return {key: checked_observation(s, value[key], f"{said}, for {key!r},") for key, s in inner}
    if isinstance(space, spaces.Tuple):
        if not isinstance(value, (tuple, list)) or len(value) != len(space.spaces):
            raise EnvironmentFault(f"{said} {_described(value)}; declared is a Tuple of {len(space.spaces)}")
        pairs = enumerate(zip(space.spaces, value, strict=True))
        return tuple(checked_observation(s, one, f"{said}, for entry {i},") for i, (s, one) in pairs)
    array = _array(value)
    single = isinstance(space, spaces.Discrete)
    shape = () if single else space.shape
    fits = array is not None and (array.shape == shape or (single and array.size == 1))
    if not fits or array.dtype.kind not in "fiub":
        raise EnvironmentFault(f"{said} {_described(value)} as observation; declared is {shown(space, 300)}")
    if isinstance(space, spaces.Box):
        if space.dtype == np.uint8 and array.dtype != np.uint8:
            whole = array.dtype.kind in "iu" and array.min(initial=0) >= 0 and array.max(initial=0) <= 255
            if not whole:
                raise EnvironmentFault(
                    f"{said} {_described(value)}; declared are whole numbers of 0 to 255, uint8"
                )
        return array
    low, counts = choices_of(space)
    array = array.reshape(shape)
    inside = (array >= low) & (array < low + counts) & (array == np.floor(array))
    if not np.all(inside):  # nothing that could stand for a choice
        raise EnvironmentFault(
            f"{said} {shown(array.tolist())} as observation; declared is {shown(space, 300)}"
        )
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
        self._env, self._space = name, space
        leaves = list(self._leaves(space, "", lambda value: value))
        self._parts = [(get, offsets, len(names)) for get, offsets, names in leaves]
        self.names = tuple(one for _, _, names in leaves for one in names)
        if len(set(self.names)) < len(self.names):
            self.names = tuple(f"{one}#{i}" for i, one in enumerate(self.names))
        if not self.names:
            raise UserError(f"{name} observes {shown(space, 300)}, which is nothing")

    def read(self, value: Any, into: np.ndarray) -> None:
        """The S numbers of an observation that `checked_observation` gave, into a row (S,) of float32."""
        first = 0
        for get, offsets, size in self._parts:
            part = into[first : first + size]
            if offsets is None:
                with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and told
                    part[:] = np.reshape(get(value), -1)
            else:
                low, starts = offsets
                part[:] = 0
                part[starts + np.reshape(get(value), -1) - low] = 1
            first += size

    def _leaves(
        self, space: spaces.Space, where: str, get: Callable[[Any], Any]
    ) -> Iterator[tuple[Callable[[Any], Any], tuple[np.ndarray, np.ndarray] | None, list[str]]]:
        """Of each part that is no container: how it is found, where choices begin, names of its sensors."""
        if isinstance(space, spaces.Dict | spaces.Tuple):
            pairs = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
            for key, inner in pairs:
                inside = f"{where}.{key}" if where else str(key)
                yield from self._leaves(inner, inside, lambda value, key=key: get(value)[key])
            return
        at = f" for {where!r}" if where else ""
        if isinstance(space, spaces.Box) and (
            len(space.shape) > 2 or (space.dtype == np.uint8 and len(space.shape) > 1)
        ):
            raise UserError(f"{self._env} observes{at} {shown(space, 300)}, which is a picture; {PICTURE}")
        kinds = (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)
        if not isinstance(space, kinds):
            raise UserError(
                f"{self._env} observes{at} {shown(space, 300)}; sensors are read from Box, Discrete, "
                "MultiDiscrete, MultiBinary, and from Dict and Tuple of these"
            )
        base = where if where and not where.isdecimal() else f"obs_{where}" if where else "obs"
        places = [base + "".join(f"_{i}" for i in index) for index in np.ndindex(*space.shape)]
        if isinstance(space, spaces.Box | spaces.MultiBinary):
            self._check_count(len(places))
            yield get, None, places
            return
        low, counts = (part.reshape(-1) for part in choices_of(space))
        self._check_count(int(counts.sum()))
        names = [
            f"{place}={first + i}"
            for place, first, count in zip(places, low, counts, strict=True)
            for i in range(count)
        ]
        yield get, (low, np.cumsum(counts) - counts), names

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
