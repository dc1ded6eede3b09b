"""What training and evaluation make environments from, also from the configuration that a stranger saved."""

from __future__ import annotations

import abc
import copy
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Self

from .errors import UserError, one_line
from .user_modules import NAME, imported_class, is_foreign

if TYPE_CHECKING:  # a policy.json is read without torch
    import torch

    from .gym import TokenVectorEnv
    from .token_env import TokenEnv

MOST_DEPTH, MOST_VALUES, LONGEST_TEXT = 20, 100_000, 4096
"""Objects inside each other, values, and characters of one, of an environment's configuration."""

LARGEST: dict[str, float] = {
    "frame_skip": 1000,
    "action_repeat": 1000,
    "max_episode_steps": 10_000_000,
    "history": 1000,
    "neighbors": 1_000_000,
    "traces": 1_000_000,
    "duplicates": 1000,
    "noise_channels": 10_000,
    "stuck": 100_000,
    "patch_size": 4096,
    "size": 4096,
    "variants": 1000,
    "strips": 1000,
    "parts": 1000,
}
"""Of what is stored or repeated so often, by the name of its key. What is larger could only do harm."""

ALLOWANCES = ("files_from", "compile_seconds", "imports")
"""What a user allows: files of his robots, modules. It travels with no policy, which may be a stranger's."""

_TARGET = re.compile(r"somite(\.[A-Za-z_][A-Za-z0-9_]*)+")


class TaskSet(abc.ABC):
    """One or several variants of a task (bodies), some trained on and some held out.

    Attributes:
        parts: classes of those arguments of the constructor that the configuration describes by keys.
        kind: of its tokens, ``limbs``, ``sensors`` or ``patches``.
        has_physics: whether a simulation of ours can diverge; else NaN is what an environment gave.
        device_simulation: what can simulate it on a device, a value of the key ``simulation``; None: nothing.
        simulation: what does: ``cpu``, or `device_simulation`; see `simulated_by`.
        device_options: options of that for this machine; no policy is saved with them.
    """

    parts: ClassVar[Mapping[str, type]] = {}
    kind: str
    has_physics = True
    device_simulation: str | None = None
    simulation = "cpu"
    device_options: Mapping[str, Any] = {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build it, and its `parts`, from a saved node of ``conf/env``. Raises UserError: it does not fit."""
        values = {key: value for key, value in config.items() if key != "_target_"}
        try:
            for name, kind in cls.parts.items():
                if values.get(name) is not None:
                    values[name] = built_part(name, values[name], kind)
            return cls(**values)
        except TypeError as error:
            raise UserError(f"the saved environment does not fit this version: {error}") from error

    @classmethod
    def used(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """What it is built from of a node of ``conf/env``: a policy is saved with no more."""
        return dict(config)

    @property
    @abc.abstractmethod
    def seen(self) -> tuple[str, ...]:
        """Names of what is trained on."""

    @property
    @abc.abstractmethod
    def unseen(self) -> tuple[str, ...]:
        """Names of what is held out."""

    @property
    @abc.abstractmethod
    def max_episode_steps(self) -> int:
        """Steps after which an episode is cut."""

    @abc.abstractmethod
    def choose(self, bodies: str | Sequence[str]) -> tuple[str, ...]:
        """Names for ``all``, ``seen``, ``unseen``, one name or several. Raises UserError."""

    @abc.abstractmethod
    def make_env(
        self,
        names: Sequence[Any] | None = None,
        num_envs: int | None = None,
        device: torch.device | str = "cpu",
        *,
        aligned: bool = False,
        stagger: bool = False,
        once: bool = False,
        autoreset: bool = True,
        threads: int = 0,
        **options: Any,
    ) -> TokenEnv:
        """An environment of these, simulated as `simulation` says.

        Args:
            names: of bodies; None: all that are trained on.
            num_envs: B, spread evenly over them, or over all as the task says; None: one of each.
            device: of all its tensors; with ``simulation=cpu`` the CPU.
            aligned: each limb in the slot of the family's full body, for the padded network.
            stagger: give every first episode a random age, so that time limits do not fall together.
            once: only the first episode of each is looked at. What has ended may stay as it is until the next
                reset, with rewards of 0, or begin others.
            autoreset: see `TokenEnv.autoreset`.
            threads: of the simulation on the CPU; 0: one per core.
            options: of the kind of task.

        Raises:
            UserError: it cannot be simulated so.
        """

    def make_vec(
        self, names: Sequence[Any] | None = None, num_envs: int | None = None, **options: Any
    ) -> TokenVectorEnv:
        """`make_env` as Gymnasium's vector environment."""
        from .gym import TokenVectorEnv

        return TokenVectorEnv(self.make_env(names, num_envs, **options))

    def simulated_on(self, device: torch.device | str) -> torch.device:
        """The device of an environment's tensors. Raises UserError: ``simulation=cpu`` has only one."""
        import torch

        device = torch.device(device)
        if self.simulation == "cpu" and device.type != "cpu":
            raise UserError(f"simulation=cpu gives tensors of the CPU, not of {device}")
        return device

    def why_not_on_device(self) -> str | None:
        """Half a sentence, why this cannot be simulated on a device as it is configured; None: it can."""
        return None if self.device_simulation else "this task is simulated on the CPU only"

    def simulated_by(self, simulation: str, **options: Any) -> TaskSet:
        """The same, simulated so from now on, with `device_options`. Raises UserError: it cannot be."""
        if simulation != "cpu" and (self.device_simulation != simulation or self.why_not_on_device()):
            raise UserError(f"{self.why_not_on_device()}: use simulation=cpu")
        return self.changed(simulation=simulation, device_options=options or self.device_options)

    def changed(self, **attributes: Any) -> Self:
        """The same with other attributes, such as ``senses`` of a task of sensors."""
        other = copy.copy(self)
        vars(other).update(attributes)
        return other

    def cut_short(self, steps: int) -> TaskSet:
        """The same with episodes of at most so many steps."""
        return self.changed(max_episode_steps=min(steps, self.max_episode_steps))

    def for_evaluation(self) -> TaskSet:
        """The same without what only helps training, such as episodes that end early."""
        return self

    def hashes(self) -> dict[str, str]:
        """Hashes of what is trained on, by name, where a name alone does not say what it is."""
        return {}

    def identities(self) -> dict[str, str]:
        """The same of what they are alone, where they stand in scenes."""
        return {}

    def start_notes(self, names: Sequence[str] | None = None) -> tuple[str, ...]:
        """What is to be known before anything is trained, of these or of all that is trained on."""
        return ()

    def notes(self) -> tuple[str, ...]:
        """What must stand beside every score."""
        return ()


def target_of(kind: type) -> str:
    """The ``_target_`` of a part of a task: ``somite.envs.locomotion.World``."""
    return f"{'.'.join(kind.__module__.split('.')[:3])}.{kind.__name__}"


def built_part(name: str, node: Any, kind: type) -> Any:
    """What a node of a task's configuration describes, of one class alone. Raises UserError: of another."""
    if not isinstance(node, Mapping):
        raise UserError(f"{name} of this environment is {node!r}; expected keys and values")
    values = dict(node)
    target = values.pop("_target_", None)
    if target is not None and imported_class(target, kind, __package__) is not kind:
        raise UserError(f"env.{name}._target_ is {target!r}; expected {target_of(kind)}")
    return kind.from_config(values) if issubclass(kind, TaskSet) else kind(**values)


def task_set_of(config: Mapping[str, Any]) -> TaskSet:
    """Rebuild what ``conf/env`` described when the policy was trained.

    A policy may come from a stranger: ``_target_`` must be a task of ours, or of a module that the user has
    named or imported himself. Its paths are read as robots and pictures, and as nothing else.

    Raises:
        UserError: another target, an unknown key, or an invalid value.
    """
    try:
        check_environment(config, "env")
        target = str(config.get("_target_"))
        kind = imported_class(target, TaskSet, __package__)
        if kind is not None:
            return kind.from_config(config)
        if is_foreign(target):
            raise UserError(
                f"this environment is a {target!r}, a class of a module that is not of this package; if you "
                f"trust it, say env._target_={target} on the command line, or import its module first"
            )
        raise UserError(
            f"this environment is a {target!r}; expected a task, such as somite.envs.locomotion.BodySet"
        )
    except UserError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        told = one_line(str(error))
        raise UserError(f"the saved environment cannot be built: {type(error).__name__}: {told}") from error


def with_changes(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A saved environment's configuration with other values of keys and nodes; null: as it was saved."""
    changed = dict(config)
    for name, change in changes.items():
        if isinstance(change, Mapping):
            merged = with_changes(changed.get(name) or {}, change)
            if merged or changed.get(name):
                changed[name] = merged
        elif change is not None:
            changed[name] = change
    return changed


def check_environment(config: Mapping[str, Any], where: str) -> None:
    """Refuses sizes that could only do harm, and names that are not ours. Raises UserError."""
    for count, (key, name, value) in enumerate(values_of(config, where)):
        if count > MOST_VALUES or key.count(".") - where.count(".") > MOST_DEPTH:
            raise UserError(f"{where} is larger than the configuration of any environment")
        known = NAME if key == f"{where}._target_" else _TARGET  # which `task_set_of` looks up
        if name == "_target_" and not (isinstance(value, str) and known.fullmatch(value)):
            raise UserError(f"{key} is {str(value)[:100]!r}; only names that start with somite. are known")
        if isinstance(value, str) and (len(value) > LONGEST_TEXT or "\0" in value):
            raise UserError(f"{key} has {len(value):,} characters, or one that no text has")
        if name in LARGEST and isinstance(value, str):
            with suppress(ValueError):
                value = float(value)  # counts may be written as text
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            most = LARGEST.get(name, math.inf if isinstance(value, float) else 1e15)
            if not abs(value) <= most:  # NaN is not, either
                raise UserError(
                    f"{key} is {str(value)[:100]}; no environment has more than {most:,.0f} there"
                )


def values_of(node: Any, where: str = "") -> Iterator[tuple[str, str, Any]]:
    """The values of nested objects and lists: where each stands, the key it belongs to, and the value.

    Not by recursion: what is too deep is to be refused by a message.
    """
    waiting = [(where, "", node)]
    while waiting:
        at, name, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [(f"{at}.{key}" if at else str(key), str(key), inner) for key, inner in value.items()]
        elif isinstance(value, (list, tuple)):
            waiting += [(f"{at}.{number}", name, inner) for number, inner in enumerate(value)]
        yield at, name, value
