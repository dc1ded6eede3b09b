"""What training and evaluation ask of whatever they make environments from: bodies, or a task of sensors."""

from __future__ import annotations

import abc
import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .errors import UserError
from .gym import TokenVectorEnv
from .token_env import TokenEnv


class TaskSet(abc.ABC):
    """One or several variants of a task (bodies), some trained on and some held out.

    Attributes:
        kind: of its tokens, ``limbs`` or ``sensors``.
        has_physics: whether a simulation of ours can diverge; else NaN is what an environment gave.
        device_simulation: what can simulate it on a device, a value of the key ``simulation``; None: nothing.
        simulation: what does: ``cpu``, or `device_simulation`; see `simulated_by`.
        device_options: options of that for this machine; no policy is saved with them.
    """

    kind: str
    has_physics = True
    device_simulation: str | None = None
    simulation = "cpu"
    device_options: Mapping[str, Any] = {}

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

    def make_vec(
        self, names: Sequence[Any] | None = None, num_envs: int | None = None, **options: Any
    ) -> TokenVectorEnv:
        """`make_env` as Gymnasium's vector environment."""
        return TokenVectorEnv(self.make_env(names, num_envs, **options))

    def simulated_on(self, device: torch.device | str) -> torch.device:
        """The device of an environment's tensors. Raises UserError: ``simulation=cpu`` has only one."""
        device = torch.device(device)
        if self.simulation == "cpu" and device.type != "cpu":
            raise UserError(f"simulation=cpu gives tensors of the CPU, not of {device}")
        return device

    def why_not_on_device(self) -> str | None:
        """Half a sentence, why this cannot be simulated on a device as it is configured; None: it can."""
        return None if self.device_simulation else "this task is simulated on the CPU only"

    def simulated_by(self, simulation: str, **options: Any) -> TaskSet:
        """The same, simulated by ``cpu``, ``warp`` or ``torch`` from now on, with `device_options`.

        Raises:
            UserError: it cannot be.
        """
        if simulation != "cpu" and (self.device_simulation != simulation or self.why_not_on_device()):
            raise UserError(f"{self.why_not_on_device()}: use simulation=cpu")
        other = copy.copy(self)
        other.simulation = simulation
        other.device_options = options or self.device_options
        return other

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
            num_envs: B, spread evenly over them; None: one of each.
            device: of all its tensors; with ``simulation=cpu`` the CPU.
            aligned: each limb in the slot of the family's full body, for the padded network.
            stagger: give every first episode a random age, so that time limits do not fall together.
            once: one episode each: what has ended stays as it is, with rewards of 0, until the next reset.
            autoreset: see `TokenEnv.autoreset`.
            threads: of the simulation on the CPU; 0: one per core.
            options: of the kind of task.

        Raises:
            UserError: it cannot be simulated so.
        """

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


def with_changes(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A saved environment's configuration with other values of what varies; null: as it was saved.

    Args:
        config: of the environment.
        changes: of its keys and nodes.
    """
    changed = dict(config)
    for name, change in changes.items():
        if isinstance(change, Mapping):
            merged = with_changes(changed.get(name) or {}, change)
            if merged or changed.get(name):
                changed[name] = merged
        elif change is not None:
            changed[name] = change
    return changed


def build_parts(kind: type[TaskSet], config: Mapping[str, Any], parts: Mapping[str, tuple[type, str]]) -> Any:
    """Build a `TaskSet` from a saved node of ``conf/env`` without looking anything up by the names in it.

    Args:
        kind: its class, already chosen.
        config: of the node.
        parts: keys whose values are built themselves; of each the class, and its package as ``_target_``
            writes it.

    Raises:
        UserError: another target, an unknown key, or an invalid value.
    """
    values = {key: value for key, value in config.items() if key != "_target_"}
    try:
        for name, (wanted, package) in parts.items():
            part = values.pop(name, None)
            part = {} if part is None else part
            if not isinstance(part, Mapping):
                raise UserError(f"{name} of this environment is {part!r}; expected keys and values")
            part = dict(part)
            known_class(part.pop("_target_", f"{package}.{wanted.__name__}"), package, (wanted,))
            values[name] = wanted(**part)
        return kind(**values)
    except TypeError as error:
        raise UserError(f"the saved environment does not fit this version: {error}") from error


def known_class(target: Any, package: str, classes: Sequence[type]) -> type:
    """The class that a saved ``_target_`` names. Raises UserError if it is none of them."""
    for kind in classes:
        if target == f"{package}.{kind.__name__}":
            return kind
    expected = " or ".join(f"{package}.{kind.__name__}" for kind in classes)
    raise UserError(f"this environment is a {target!r}; expected {expected}")
