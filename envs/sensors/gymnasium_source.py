"""Any registered Gymnasium environment of vector observations as a source of readings, row by row."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import inspect
import logging
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, load_env_creator
from torch import Tensor

from ..draws import RandomNumbers
from ..errors import EnvironmentFault, UserError, nearest, shown
from ..user_modules import import_modules, with_place
from .boundary import Boundary, Sensors, check_methods, choices_of
from .source import Episodes, Source, tell_lost

logger = logging.getLogger(__name__)

_NAMED_BY_ARGUMENTS = ("GymV21Environment", "GymV26Environment")
"""They import and make whatever environment their arguments name."""

_ARGUMENTS_OF_MAKE = {
    "id": "say env.id",
    "max_episode_steps": "say env.max_episode_steps",
    "disable_env_checker": "its checker is always off",
}

_EXTRAS = {"box2d": "box2d", "phys2d": "jax", "tabular": "jax"}
"""What of Gymnasium is to be installed for the environments of a folder of its own."""

_BOX2D = "gymnasium.envs.box2d"
"""Its environments reset the bodies in their world, but not the world, whose traces of earlier episodes show
in the last digits of later ones, and soon in the first."""

ATARI = "ALE/"
"""What the ids of Atari games begin with; they are registered by a package of their own."""

UNBOUNDED = 1e18
"""Bounds of this size are none: some environments say ``np.finfo(np.float32).max`` for infinity."""

MOST_CHOICES = 10_000
"""Of all decisions of an action together."""

MOST_NAMES = 5
"""Ids that the message about an unknown one tells: hundreds may be registered."""


_ROBOT_FILES = ("xml_file", "model_path")
"""Arguments of MuJoCo tasks that name an MJCF file."""


def find_spec(env_id: Any, imports: Any = None) -> EnvSpec:
    """What is registered under exactly this id.

    Nothing is imported by a name in it, as `gymnasium.make` would do for ``"module:Id"``: a saved policy,
    which holds the id of its task, may come from a stranger. The module is to be among ``imports``, or
    imported already.

    Args:
        env_id: with its version, with or without the module that registers it.
        imports: modules that are imported first, at the user's word; see `import_modules`.

    Raises:
        UserError: no text, a module that the user does not name, an unknown id (with the nearest that are
            registered), or one whose arguments name another environment.
    """
    if not isinstance(env_id, str) or not env_id:
        raise UserError(
            f"env.id is {env_id!r}; say the id of a Gymnasium environment, such as env.id=Pendulum-v1"
        )
    named = import_modules(imports)
    module, _, name = env_id.rpartition(":")
    if module and module not in sys.modules:
        word = ",".join([*named, module])
        raise UserError(
            f"env.id={env_id} is of the module {module!r}, which is imported only where the command line "
            f"names it: add env.imports=[{word}]"
        )
    if name.startswith(ATARI) and name not in gymnasium.registry:
        _register_atari(name)
    if name not in gymnasium.registry:
        raise UserError(_unknown(name, dict.fromkeys([module, *named] if module else named)))
    spec = gymnasium.registry[name]
    if spec.name in _NAMED_BY_ARGUMENTS:
        raise UserError(f"env.id={env_id!r} makes what its arguments name, and imports it; give a task's id")
    return spec


def _unknown(name: str, modules: Iterable[str]) -> str:
    """That there is no such id, and what can be done."""
    said = f"no environment {name!r} is registered with Gymnasium"
    if modules:
        own = [
            key for key, spec in gymnasium.registry.items() if _root(spec.entry_point) in map(_top, modules)
        ]
        near = difflib.get_close_matches(name, own, n=1)
        own.sort(key=lambda key: key not in near)  # it is told first
        registered = shown(", ".join(own), 300) if own else "no environment of its own"
        return f"{said}, also after the import of {', '.join(modules)}, which registers {registered}"
    close = difflib.get_close_matches(name, gymnasium.registry, n=MOST_NAMES, cutoff=0.3)
    hint = f"did you mean {close[0]!r}? similar: {', '.join(close)}" if close else "nothing is similar"
    return f"{said}; {hint}; where a module registers it: env.imports=[<module>]"


def _root(entry_point: Any) -> str:
    """The package that an environment comes from."""
    return _top(entry_point if isinstance(entry_point, str) else getattr(entry_point, "__module__", ""))


def _top(module: str) -> str:
    return re.split("[.:]", module)[0]


def _register_atari(env_id: str) -> None:
    """Atari games are known once their package has been imported, which is done for their ids alone."""
    if importlib.util.find_spec("ale_py") is None:
        raise UserError(f"{env_id} needs ale-py: pip install 'somite[atari]' brings it")
    import ale_py

    gymnasium.register_envs(ale_py)


def episode_limit(spec: EnvSpec, given: int | None) -> int:
    """Steps after which an episode is cut: ``given``, or the task's own. Raises UserError: there is none."""
    limit = spec.max_episode_steps if given is None else given
    if limit is None:
        raise UserError(f"{spec.id} sets no limit to its episodes; say env.max_episode_steps=<steps>")
    return limit


class _Guarded(gymnasium.Wrapper):
    """An environment of somebody else's, whose errors are told in one message with the line of its code."""

    def reset(self, **kwargs: Any) -> Any:
        """Raises EnvironmentFault."""
        try:
            return self.env.reset(**kwargs)
        except (Exception, SystemExit) as error:
            raise self._fault("reset()", error) from error

    def step(self, action: Any) -> Any:
        """Raises EnvironmentFault."""
        try:
            return self.env.step(action)
        except (Exception, SystemExit) as error:
            raise self._fault("step()", error) from error

    def close(self) -> None:
        """What goes wrong is logged: nothing more is wanted of it."""
        try:
            self.env.close()
        except (Exception, SystemExit) as error:
            _warn_once(str(self._fault("close()", error)))

    def _fault(self, method: str, error: BaseException) -> UserError:
        if isinstance(error, UserError):  # of an environment of ours
            return error
        return EnvironmentFault(f"{self.env.spec.id}: {method} raised {with_place(error)}")


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning("%s", message)


def make_env(env_id: str, kwargs: Mapping[str, Any]) -> gymnasium.Env:
    """The environment without Gymnasium's time limit and checks.

    Args:
        env_id: of a registered environment.
        kwargs: arguments of its own.

    Raises:
        UserError: a package is missing, or the environment does not take these arguments.
    """
    spec = find_spec(env_id)
    for name, advice in _ARGUMENTS_OF_MAKE.items():
        if name in kwargs:
            raise UserError(f"env.kwargs.{name} is no argument of {env_id} itself; {advice}")
    for name in _ROBOT_FILES:
        if isinstance(kwargs.get(name), str):
            _check_robot(kwargs[name])
    try:
        env = _Guarded(gymnasium.make(env_id, max_episode_steps=-1, disable_env_checker=True, **kwargs))
        check_methods(env)
        return env
    except UserError:
        raise
    except (gymnasium.error.Error, ImportError) as error:
        raise UserError(f"{env_id} cannot be made: {error}{_extra(spec, str(error))}") from error
    except Exception as error:  # it runs code of others, which may raise anything
        if not kwargs:
            raise UserError(f"{env_id} cannot be made: {with_place(error)}") from error
        known = _arguments(spec)
        for name in kwargs:
            if name not in known:
                raise UserError(
                    f"{env_id} takes no argument {name!r}; {nearest(str(name), known)}"
                ) from error
        raise UserError(f"{env_id} does not take env.kwargs={dict(kwargs)}: {with_place(error)}") from error


def _check_robot(name: str) -> None:
    """Refuses an MJCF file that reads beyond its folder. Gymnasium looks in its own for a bare name."""
    from ..locomotion.bodies.user_bodies import check_robot

    own = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
    for path in (Path(name).expanduser(), own / name):
        if path.is_file():
            check_robot(path, path.stat().st_mtime_ns)


def _extra(spec: EnvSpec, message: str) -> str:
    """How to install what an environment of Gymnasium's own needs, where the message does not say so."""
    parts = str(spec.entry_point).split(".")
    if parts[:2] == ["gymnasium", "envs"] and parts[2] in _EXTRAS and "pip install" not in message:
        return f'; try pip install "gymnasium[{_EXTRAS[parts[2]]}]"'
    return ""


def _arguments(spec: EnvSpec) -> list[str]:
    """Names that the constructor takes, those handed on to its parents included."""
    creator = spec.entry_point if callable(spec.entry_point) else load_env_creator(spec.entry_point)
    names: dict[str, None] = {}
    for part in inspect.getmro(creator) if inspect.isclass(creator) else (creator,):
        if part in (gymnasium.Env, object):
            break
        own = inspect.signature(part).parameters.values()
        names |= {p.name: None for p in own if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        if all(p.kind != p.VAR_KEYWORD for p in own):
            break
    return list(names)


class NominalActions:
    """What nominal actions mean to an environment.

    Args:
        env: its actions are a ``Box`` of real numbers in one dimension and between bounds, to which [-1, 1]
            is affine; or choices, ``Discrete``, ``MultiDiscrete`` or ``MultiBinary``, whose first is 0 here.
        device: of the actions that are given.

    Attributes:
        space: the nominal one: a ``Box``, ``Discrete``, or ``MultiDiscrete`` of one dimension.
        dtype: of the environment's own actions.
        shape: of one of them.

    Raises:
        UserError: actions of another kind, none, or without bounds.
    """

    def __init__(self, env: gymnasium.Env, device: torch.device | str = "cpu") -> None:
        space, name = env.action_space, env.spec.id if env.spec else type(env).__name__
        self.shape, self.dtype = space.shape, space.dtype

        def tensor(values: Any) -> Tensor:
            return torch.from_numpy(np.array(values)).to(device)

        self._kind = tensor(np.zeros(0, space.dtype)).dtype
        if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
            first, counts = choices_of(space)
            if not counts.size:
                raise UserError(f"the actions of {name} are {space}: there is nothing to decide")
            if counts.sum() > MOST_CHOICES:
                raise UserError(
                    f"the actions of {name} are {shown(space, 300)}, {counts.sum():,} choices, each of which "
                    f"would be an output of the policy; at most {MOST_CHOICES:,} are chosen from"
                )
            single = isinstance(space, spaces.Discrete)
            self.space: spaces.Box | spaces.Discrete | spaces.MultiDiscrete = (
                spaces.Discrete(int(counts)) if single else spaces.MultiDiscrete(counts.reshape(-1))
            )
            self._first = tensor(first)
            return
        if (
            not isinstance(space, spaces.Box)
            or len(space.shape) != 1
            or not np.issubdtype(space.dtype, np.floating)
        ):
            raise UserError(
                f"the actions of {name} are {shown(space, 300)}; what fits is a Box of one dimension of real "
                f"numbers, or Discrete, MultiDiscrete, MultiBinary"
            )
        low, high = space.low.astype(float), space.high.astype(float)
        if not (np.abs(low) < UNBOUNDED).all() or not (np.abs(high) < UNBOUNDED).all():  # NaN is not, either
            raise UserError(
                f"the actions of {name}, {shown(space, 300)}, have no bounds that -1 and 1 could stand for; "
                f"give it some, such as by gymnasium.wrappers.TransformAction, in a module of yours that "
                "registers it (env.imports)"
            )
        if (low > high).any() or not (low < high).any():
            what = "low bounds above the high ones" if (low > high).any() else "nothing to decide"
            raise UserError(f"the actions of {name}, {shown(space, 300)}, have {what}")
        self._low, self._high = tensor(low), tensor(high)
        self.space = spaces.Box(-1.0, 1.0, space.shape, np.float32)
        self._center, self._half = tensor((low + high) / 2), tensor((high - low) / 2)

    def __call__(self, nominal: Tensor) -> Tensor:
        """(B, ...) in the environment's units and shape, of nominal ones (B, A), or whole numbers (B,)."""
        if not isinstance(self.space, spaces.Box):
            return (nominal.reshape(-1, *self.shape) + self._first).to(self._kind)
        physical = self._center + self._half * nominal  # may be a rounding beyond the bounds
        return physical.clamp(self._low, self._high).to(self._kind)


SEEDS_OF_EPISODES = 2**31
"""Seeds that episodes of Gymnasium's environments are reset with lie below it."""


class GymnasiumSource(Source):
    """B environments, each stepped by itself; a `Source`.

    An environment cannot be saved: a snapshot holds the seed and the actions of its present episode, by which
    it is replayed, and what it showed last, by which it is checked that it has come to the same place.

    Args:
        num_envs: B.
        env_id: of a registered environment.
        kwargs: its own arguments.
        max_episode_steps: steps after which an episode is cut.
        sensor_scales: (S,) factors of the readings; None: raw units.

    Raises:
        UserError: an environment that cannot be made, or whose spaces do not fit.
    """

    kept = ("_episodes", "_shown")

    def __init__(
        self,
        num_envs: int,
        env_id: str,
        kwargs: Mapping[str, Any],
        max_episode_steps: int,
        sensor_scales: Sequence[float] | None = None,
    ) -> None:
        self.name, self.num_envs, self.max_episode_steps = env_id, num_envs, max_episode_steps
        self._make = functools.partial(make_env, env_id, dict(kwargs))
        self._envs = [self._make() for _ in range(num_envs)]
        self._made_anew = str(find_spec(env_id).entry_point).startswith(_BOX2D)
        self._physical = NominalActions(self._envs[0])
        self.single_action_space = self._physical.space
        self._scales = None if sensor_scales is None else torch.tensor(sensor_scales, dtype=torch.float32)
        physical = self._physical
        self._episodes = Episodes(num_envs, n_seeds=1, action=physical.shape, dtype=physical.dtype)
        self._boundary = Boundary(env_id, self._envs[0].observation_space)
        self._make_room()

    def _make_room(self) -> None:
        """For what the environments observe."""
        self._sensors = Sensors(self.name, self._envs[0].observation_space)
        self.sensor_names = self._sensors.names
        self._shown = torch.zeros(self.num_envs, len(self.sensor_names))

    def _keep(self, row: int, observation: Any) -> None:
        """Keep what a row shows: an observation that the boundary has let through."""
        self._sensors.read(observation, self._shown[row].numpy())

    def start(self, where: Tensor, draws: RandomNumbers) -> None:
        """Reset with a seed that is drawn."""
        rows = where.nonzero().flatten().tolist()
        seeds = draws.integers(SEEDS_OF_EPISODES)[rows].tolist()
        self._episodes.start(rows, np.array(seeds)[:, None])
        for row, seed in zip(rows, seeds, strict=True):
            self._keep(row, self._begin(row, seed))

    def _begin(self, row: int, seed: int) -> Any:
        """The first observation of a row's episode, which the seed alone decides on."""
        if self._made_anew:
            self._envs[row].close()
            self._envs[row] = self._make()
        return self._boundary.reset(self._envs[row], seed)

    def step(self, actions: Tensor, running: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Step those that are ``running``; the others stay as they are."""
        rewards = np.zeros(self.num_envs)
        terminated, cut = np.zeros((2, self.num_envs), bool)
        physical, goes = self._physical(actions).numpy(), running.numpy()
        self._episodes.enter(physical, goes)
        for row in np.flatnonzero(goes):
            told = self._boundary.step(self._envs[row], physical[row])
            observation, rewards[row], terminated[row], cut[row] = told
            self._keep(row, observation)
        return tuple(torch.from_numpy(part) for part in (rewards, terminated, cut))

    def read(self) -> Tensor:
        """(B, S) float32, what the environments observe."""
        return self._shown if self._scales is None else self._shown * self._scales

    def restore(self, taken: Mapping[str, Any]) -> Sequence[int]:
        """Replay the episodes; see `Source.restore`."""
        super().restore(taken)
        wanted = self._shown.clone()
        lost = [row for row in range(self.num_envs) if not self._replay(row, wanted[row])]
        tell_lost(self.name, len(lost), self.num_envs)
        return lost

    def _replay(self, row: int, wanted: Tensor) -> bool:
        """Whether a row's environment comes to show what is wanted."""
        (seed,), actions = self._episodes.of(row)
        observation, left = self._begin(row, seed), len(actions)
        for action in actions:
            observation, _, terminated, cut = self._boundary.step(self._envs[row], action)
            left -= 1
            if left and (terminated or cut):
                return False
        self._keep(row, observation)
        return torch.equal(self._shown[row].nan_to_num(), wanted.nan_to_num())

    def render(self, row: int) -> np.ndarray:
        """(H, W, 3) uint8, how a row's environment draws itself; see `picture_of`. Raises UserError."""
        from .gymnasium_task import picture_of

        return picture_of(self._envs[row])

    def close(self) -> None:
        """Close the environments."""
        for env in self._envs:
            env.close()
