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

import contextlib
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

_INVALID = (ValueError, TypeError, OverflowError)


def is_number(value: Any) -> bool:
    """Whether it is a finite number, which True and False are not."""
    return isinstance(value, Real) and not isinstance(value, bool) and -math.inf < value < math.inf


class Valid:
    """Values that a key may have.

    Args:
        wanted: in words, after "must be".
        convert: gives a value as the program uses it; raises ValueError, TypeError or OverflowError for one
            that is invalid.
        words: among the values, those that are names.
    """

    def __init__(self, wanted: str, convert: Callable[[Any], Any], words: Sequence[str] = ()) -> None:
        self.wanted, self.convert, self.words = wanted, convert, tuple(words)
        self._options: tuple[Valid, ...] = (self,)

    def read(self, name: str, value: Any) -> Any:
        """What `convert` gives, of the key ``name``. Raises UserError, with the nearest name, if one is."""
        try:
            return self.convert(value)
        except _INVALID:
            close = difflib.get_close_matches(value, self.words, 1) if isinstance(value, str) else []
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UserError(f"{name} must be {self.wanted}, got {_as_typed(value)}{hint}") from None

    def told(self, wanted: str) -> Valid:
        """The same in other words."""
        return Valid(wanted, self.convert, self.words)

    def __or__(self, other: Valid) -> Valid:
        options = (*self._options, other)
        *first, last = [option.wanted for option in options]

        def convert(value: Any) -> Any:
            for option in options:
                with contextlib.suppress(*_INVALID):
                    return option.convert(value)
            raise ValueError

        wanted = f"{', '.join(first)}{',' * (len(first) > 1)} or {last}"
        either = Valid(wanted, convert, [word for option in options for word in option.words])
        either._options = options
        return either


def _as_typed(value: Any) -> str:
    """As it is written on the command line."""
    names = {True: "true", False: "false", None: "null"}
    return names[value] if value is None or isinstance(value, bool) else shown(repr(value))


def whole(low: int = 0, high: int = LARGEST_COUNT) -> Valid:
    """Whole numbers, also written as ``5e6``, which Hydra gives as a float, or as a text of either."""

    def convert(value: Any) -> int:
        if isinstance(value, str):
            value = float(value)  # Hydra leaves '5e6' in quotes a text
        if not is_number(value) or value != int(value) or not low <= value <= high:
            raise ValueError
        return int(value)

    if low == high:
        return Valid(_told(low), convert)
    most = f"from {_told(low)} to {_told(high)}" if high < LARGEST_COUNT else f"of {_told(low)} or more"
    return Valid(f"a whole number {most}", convert)


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

    def convert(value: Any) -> float:
        if endless and isinstance(value, float) and math.isinf(value):
            return value
        if not is_number(value) or not low <= value <= high:
            raise ValueError
        if (above and value == low) or (below and value == high):
            raise ValueError
        return value

    if low == high:
        return Valid(_told(low), convert)
    if not above and not below:
        return Valid(f"a number from {_told(low)} to {_told(high)}", convert)
    least = f"above {_told(low)}" if above else f"of {_told(low)} or more"
    return Valid(f"a number {least} and {'below' if below else 'at most'} {_told(high)}", convert)


def _told(number: float) -> str:
    if abs(number) >= 1e10:
        return f"{number:g}".replace("e+", "e")
    return f"{int(number):,}" if number == int(number) else f"{number:g}"


def listed(item: Valid, least: int = 0, most: int | None = None) -> Valid:
    """Lists of ``least`` to ``most`` values, each of ``item``."""

    def convert(value: Any) -> tuple[Any, ...]:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise TypeError
        if len(value) < least or (most is not None and len(value) > most):
            raise ValueError
        return tuple(item.convert(one) for one in value)

    many = f"of {least}" if least == most else f"of at least {least}" if least else "of any length"
    return Valid(f"a list {many} (each {item.wanted})", convert, item.words)


def between(item: Valid, rising: str = "<=") -> Valid:
    """``[low, high]`` of two values of ``item``; ``rising`` is ``<`` where they must differ."""
    pair = listed(item, 2, 2)

    def convert(value: Any) -> tuple[Any, Any]:
        low, high = pair.convert(value)
        if not (low < high or (rising == "<=" and low == high)):
            raise ValueError
        return low, high

    return Valid(f"[low, high] with low {rising} high (each {item.wanted})", convert, item.words)


def one_of(*words: str) -> Valid:
    """Names."""

    def convert(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError
        return value

    return Valid(words[0] if len(words) == 1 else f"one of {', '.join(words)}", convert, words)


def _instance(wanted: str, *kinds: type) -> Valid:
    def convert(value: Any) -> Any:
        if not isinstance(value, kinds):
            raise TypeError
        return value

    return Valid(wanted, convert)


def part(kind: type) -> Valid:
    """What another section of the configuration builds, or null, for its defaults."""
    return _instance("keys and values of its own", kind, type(None))


NULL = _instance("null", type(None))
FLAG = _instance("true or false", bool)
TEXT = _instance("a text", str)
VALUES = _instance("names and values, such as {a: 1}", Mapping)
NAMES = (TEXT | listed(TEXT, 1)).told("a name or a list of names")
SHARE = real(0, 1)
SEED = whole(0, 2**32 - 1)  # what NumPy's streams take
PROBABILITY_BELOW_1 = real(0, 1, below=True)
EPISODE_STEPS = whole(1, 10**9)
POSITIVE = real(0, 1e6, above=True)
NOISE = real(0)
WEIGHT = real()  # of a reward or a loss


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

    Messages name the arguments by their ``section`` of the configuration, if there is one. ``rules`` are
    given all arguments by name, and raise UserError for those that do not go together.
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
    """Refuses what the constructor of a class would refuse, without making anything but settings.

    Arguments that are sections of their own are left to them; ``where`` the others stand ends in a dot.

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
