"""What values a key may have, declared beside the argument that it is: types, ranges, choices.

A constructor says it in its signature, and `checked` makes it so::

    @checked("algorithm")
    @dataclass
    class PPO:
        gamma: Annotated[float, real(0, 1)] = 0.99
        num_envs: Annotated[int, whole(1, 1_000_000)] = 192

The commands read the same declarations when they compose a run, before anything is made.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, TypeVar

from .errors import UserError, shown

Class = TypeVar("Class", bound=type)
Rule = Callable[[Mapping[str, Any]], None]

LARGEST_COUNT = 10**15
"""Of steps and what else is only counted; floats are exact below."""

SEEDS = 2**32 - 1
"""The largest seed: what NumPy's streams take."""


def is_number(value: Any) -> bool:
    """Whether it is a finite number, which True and False are not."""
    return isinstance(value, Real) and not isinstance(value, bool) and -math.inf < value < math.inf


def as_typed(value: Any) -> str:
    """A value as it is written on the command line, for a message."""
    names = {True: "true", False: "false", None: "null"}
    return names[value] if value is None or isinstance(value, bool) else shown(repr(value))


class Valid:
    """Values that a key may have.

    Attributes:
        wanted: in words, after "must be".
        words: among them, those that are names.
    """

    wanted: str
    words: tuple[str, ...] = ()

    def convert(self, value: Any) -> Any:
        """The value as the program uses it. Raises ValueError: it is none of these."""
        raise NotImplementedError

    def read(self, name: str, value: Any) -> Any:
        """What `convert` gives.

        Args:
            name: of the key, as it is typed.
            value: that was given.

        Raises:
            UserError: it is none of these; with the name that is nearest, if one is.
        """
        try:
            return self.convert(value)
        except (ValueError, TypeError, OverflowError):
            close = difflib.get_close_matches(value, self.words, 1) if isinstance(value, str) else []
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UserError(f"{name} must be {self.wanted}, got {as_typed(value)}{hint}") from None

    def told(self, wanted: str) -> Valid:
        """The same in other words."""
        self.wanted = wanted
        return self

    def __or__(self, other: Valid) -> Valid:
        return _Either(*(self.options if isinstance(self, _Either) else [self]), other)


class _Either(Valid):
    def __init__(self, *options: Valid) -> None:
        self.options = options
        *first, last = [option.wanted for option in options]
        self.wanted = f"{', '.join(first)}{',' * (len(first) > 1)} or {last}"
        self.words = tuple(word for option in options for word in option.words)

    def convert(self, value: Any) -> Any:
        for option in self.options:
            try:
                return option.convert(value)
            except (ValueError, TypeError, OverflowError):
                continue
        raise ValueError


class _Number(Valid):
    def __init__(
        self, low: float, high: float, above: bool, below: bool, is_whole: bool, endless: bool
    ) -> None:
        self.low, self.high, self.above, self.below = low, high, above, below
        self.is_whole, self.endless = is_whole, endless
        kind = "whole number" if is_whole else "number"
        if low == high:
            self.wanted = _told(low)
        elif is_whole and high == LARGEST_COUNT:
            self.wanted = f"a {kind} of {_told(low)} or more"
        elif not above and not below:
            self.wanted = f"a {kind} from {_told(low)} to {_told(high)}"
        else:
            least = f"above {_told(low)}" if above else f"of {_told(low)} or more"
            self.wanted = f"a {kind} {least} and {'below' if below else 'at most'} {_told(high)}"

    def convert(self, value: Any) -> Any:
        if self.is_whole and isinstance(value, str):
            value = float(value)  # Hydra leaves '5e6' in quotes a text
        if self.endless and isinstance(value, float) and math.isinf(value):
            return value
        if not is_number(value) or (self.is_whole and value != int(value)):
            raise ValueError
        if not self.low <= value <= self.high:
            raise ValueError
        if (self.above and value == self.low) or (self.below and value == self.high):
            raise ValueError
        return int(value) if self.is_whole else value


def _told(number: float) -> str:
    if abs(number) >= 1e10:
        return f"{number:g}".replace("e+", "e")
    return f"{int(number):,}" if number == int(number) else f"{number:g}"


def whole(low: int = 0, high: int = LARGEST_COUNT) -> Valid:
    """Whole numbers, also written as ``5e6``, which Hydra gives as a float, or as a text of either."""
    return _Number(low, high, above=False, below=False, is_whole=True, endless=False)


def real(
    low: float = -1e6, high: float = 1e6, *, above: bool = False, below: bool = False, endless: bool = False
) -> Valid:
    """Finite numbers.

    Args:
        low: the smallest.
        high: the largest.
        above: ``low`` itself is not among them.
        below: ``high`` itself is not.
        endless: infinity is, which stands for no limit.
    """
    return _Number(low, high, above, below, is_whole=False, endless=endless)


class _Listed(Valid):
    def __init__(self, item: Valid, least: int, most: int | None, rising: str) -> None:
        self.item, self.least, self.most, self.rising = item, least, most, rising
        many = f"of {least}" if least == most else f"of at least {least}" if least else "of any length"
        kind = f"[low, high] with low {rising} high" if rising else f"a list {many}"
        self.wanted = f"{kind} (each {item.wanted})"
        self.words = item.words

    def convert(self, value: Any) -> Any:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise TypeError
        items = tuple(self.item.convert(item) for item in value)
        if len(items) < self.least or len(items) > (math.inf if self.most is None else self.most):
            raise ValueError
        if self.rising and not (items[0] < items[1] if self.rising == "<" else items[0] <= items[1]):
            raise ValueError
        return items


def listed(item: Valid, least: int = 0, most: int | None = None) -> Valid:
    """Lists of ``least`` to ``most`` values, each of ``item``."""
    return _Listed(item, least, most, "")


def between(item: Valid, rising: str = "<=") -> Valid:
    """``[low, high]`` of two values of ``item``; ``rising`` is ``<`` where they must differ."""
    return _Listed(item, 2, 2, rising)


class _OneOf(Valid):
    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.wanted = words[0] if len(words) == 1 else f"one of {', '.join(words)}"

    def convert(self, value: Any) -> Any:
        if not isinstance(value, str) or value not in self.words:
            raise ValueError
        return value


def one_of(*words: str) -> Valid:
    """Names."""
    return _OneOf(words)


class _Of(Valid):
    def __init__(self, wanted: str, kind: type | tuple[type, ...]) -> None:
        self.wanted, self._kind = wanted, kind

    def convert(self, value: Any) -> Any:
        if not isinstance(value, self._kind):
            raise TypeError
        return value


def part(kind: type) -> Valid:
    """What another section of the configuration builds, or null, for its defaults."""
    return _Of("keys and values of its own", (kind, type(None)))


NULL = _Of("null", type(None))
FLAG = _Of("true or false", bool)
TEXT = _Of("a text", str)
VALUES = _Of("names and values, such as {a: 1}", Mapping)
NAMES = (TEXT | listed(TEXT, 1)).told("a name or a list of names")
SHARE = real(0, 1)
SEED = whole(0, SEEDS)
PROBABILITY_BELOW_1 = real(0, 1, below=True)
WEIGHT = real()
"""Of a reward or a loss."""

NOISE = real(0)
EPISODE_STEPS = whole(1, 10**9)
POSITIVE = real(0, 1e6, above=True)


def declared(built: Any) -> dict[str, Valid]:
    """What the constructor of a class says of its arguments, by name, and of those that it hands on.

    Keywords that a constructor takes as ``**others`` are those of its base class's.
    """
    found: dict[str, Valid] = {}
    for base in built.__mro__:
        if "__init__" in vars(base):
            constructor = inspect.unwrap(vars(base)["__init__"])
            found = {**_declared(constructor), **found}
            if inspect.getfullargspec(constructor).varkw is None:
                break
    return found


@functools.cache
def _declared(constructor: Callable[..., Any]) -> dict[str, Valid]:
    found = {}
    for name, hint in typing.get_type_hints(constructor, include_extras=True).items():
        for said in getattr(hint, "__metadata__", ()):
            if isinstance(said, Valid):
                found[name] = said
    return found


def checked(section: str, *rules: Rule) -> Callable[[Class], Class]:
    """A class whose constructor reads its arguments as their ``Annotated`` types declare.

    Args:
        section: of the configuration that holds the arguments, for messages; empty where they are typed
            without one.
        rules: given all arguments by name, raise UserError for those that do not go together.
    """

    def decorate(cls: Class) -> Class:
        plain = cls.__init__
        signature = inspect.signature(plain)

        @functools.wraps(plain)
        def construct(self: Any, *given: Any, **named: Any) -> None:
            try:
                bound = signature.bind(self, *given, **named)
            except TypeError:
                plain(self, *given, **named)  # says it in Python's words
                raise
            for name, valid in _declared(plain).items():
                if name in bound.arguments:
                    key = f"{section}.{name}" if section else name
                    bound.arguments[name] = valid.read(key, bound.arguments[name])
            _keep_rules(rules, signature, bound.arguments)
            plain(*bound.args, **bound.kwargs)

        construct.rules = rules
        cls.__init__ = construct
        return cls

    return decorate


def check_arguments(built: Any, given: Mapping[str, Any], where: str) -> None:
    """Refuses what a constructor would refuse, without making anything but settings.

    Args:
        built: the class.
        given: its arguments; those that are sections of their own are left to them.
        where: they stand, with a dot at its end.

    Raises:
        UserError: a value that is not as declared, or values that do not go together.
    """
    values = {}
    for name, valid in declared(built).items():
        value = given.get(name)
        if name in given and not (isinstance(value, Mapping) and "_target_" in value):
            values[name] = valid.read(f"{where}{name}", value)
    _keep_rules(getattr(built.__init__, "rules", ()), inspect.signature(built), values)
    if dataclasses.is_dataclass(built):
        built(**{name: value for name, value in given.items() if name != "_target_"})


def _keep_rules(rules: Sequence[Rule], signature: inspect.Signature, given: Mapping[str, Any]) -> None:
    if rules:
        defaults = {name: parameter.default for name, parameter in signature.parameters.items()}
        for rule in rules:
            rule({**defaults, **given})


def whole_number(value: Any, name: str, minimum: int = 0) -> int:
    """`whole` numbers from ``minimum`` on. Raises UserError; ``name`` is what the number is called."""
    return whole(minimum).read(name, value)
