"""The numbers of an object graph, taken out as plain values and written into a graph that was built alike.

What other libraries' objects hold can often be kept by pickle alone, whose files can carry code. Here only
numbers, arrays and random streams leave the graph, with the dictionaries and lists that they stand in and
with who shares what. Everything else, which is objects of any class, functions and words, is that of the
graph that is written into. So nothing that a file says is called, imported or built, and
``torch.load(weights_only=True)`` reads it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

PLAIN = (bool, int, float, type(None))


class Misfit(ValueError):
    """Numbers of another graph than the one that they are to be written into, or of none."""


def take_graph(root: Any, left: Iterable[Any] = ()) -> list[Any]:
    """The numbers of all that can be reached from an object.

    Args:
        root: where to begin; has attributes.
        left: objects that are left out: `put_graph` leaves its own as they are.

    Returns:
        Nodes, the first of them the root; plain values and tensors.
    """
    return _Taker(root, left).nodes


def put_graph(root: Any, nodes: Any) -> None:
    """Inverse of `take_graph`, in place.

    Arrays, lists and dictionaries are made anew, shared by whoever shared them; objects and streams of
    ``root`` are written into.

    Args:
        root: built like the one that was taken from.
        nodes: of `take_graph`.

    Raises:
        Misfit: it was built otherwise, or these are no nodes. ``root`` may be half written then.
    """
    try:
        _check(
            nodes[0]["kind"] == "object", root, f"something that is {nodes[0]['kind']}", type(root).__name__
        )
        _Putter(nodes).node(0, root, type(root).__name__)
    except Misfit:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise Misfit(f"this is no saved {type(root).__name__}: {type(error).__name__}: {error}") from error


class _Taker:
    def __init__(self, root: Any, left: Iterable[Any]) -> None:
        self.nodes: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._alive: list[Any] = []  # so that no other object gets an id that is taken
        self._left = {id(one) for one in left}
        self._value(root)

    def _value(self, value: Any) -> Any:
        if type(value) in PLAIN:
            return value
        if isinstance(value, str):
            return {"word": value}
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self.nodes)
            self._alive.append(value)
            self.nodes.append(None)
            self.nodes[self._numbers[id(value)]] = self._node(value)
        return {"node": self._numbers[id(value)]}

    def _node(self, value: Any) -> dict[str, Any]:
        if id(value) in self._left:
            return {"kind": "left"}
        if isinstance(value, np.ndarray) and value.dtype != object:
            # Which of two orders an array lies in decides how its products are rounded.
            order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
            kept = torch.from_numpy(np.array(value.T if order == "F" else value, order="C"))
            return {"kind": "array", "order": order, "values": kept}
        if isinstance(value, np.generic):
            return {"kind": "number", "values": torch.from_numpy(np.array(value))}
        if isinstance(value, np.random.Generator):
            return {"kind": "stream", "state": value.bit_generator.state}
        parts: dict[str, Any] = {}
        if isinstance(value, dict):
            parts["items"] = [[_key(key), self._value(item)] for key, item in value.items()]
        elif isinstance(value, (list, tuple)):
            parts["items"] = [self._value(item) for item in value]
        if hasattr(value, "__dict__") and not isinstance(value, type) and not _is_code(value):
            parts["attributes"] = [[name, self._value(item)] for name, item in vars(value).items()]
        if parts:
            return {"kind": "object", "class": _name(value), **parts}
        return {"kind": "left"}


class _Putter:
    def __init__(self, nodes: Any) -> None:
        self._nodes = nodes
        self._made: dict[int, Any] = {}

    def _value(self, value: Any, now: Any, where: str) -> Any:
        if type(value) in PLAIN:
            _check(not _is_part(now), now, "a number or nothing", where)
            return value
        if "word" in value:
            # A word may be a name, a place or a formula: none of them comes from a file.
            _check(isinstance(now, str) and now == value["word"], now, repr(value["word"]), where)
            return now
        return self.node(value["node"], now, where)

    def node(self, number: int, now: Any, where: str) -> Any:
        """What a node stands for, made of what stands in its place now."""
        if number in self._made:
            return self._made[number]
        node = self._nodes[number]
        kind = node["kind"]
        if kind == "left":
            _check(now is not None and not isinstance(now, PLAIN), now, "something that is no number", where)
            made = now
        elif kind == "array":
            _check(not _is_part(now), now, "an array", where)
            made = node["values"].numpy().copy()
            made = made.T if node["order"] == "F" else made
        elif kind == "number":
            _check(not _is_part(now), now, "a number", where)
            made = node["values"].numpy().copy()[()]
        elif kind == "stream":
            _check(isinstance(now, np.random.Generator), now, "a random stream", where)
            now.bit_generator.state = node["state"]
            made = now
        else:
            return self._object(number, node, now, where)
        self._made[number] = made
        return made

    def _object(self, number: int, node: dict[str, Any], now: Any, where: str) -> Any:
        plain = {"dict": {}, "list": [], "tuple": ()}.get(node["class"])
        if plain is not None and type(now) is not type(plain):
            _check(not _is_part(now), now, f"a {node['class']}", where)
            now = type(plain)()
        _check(_name(now) == node["class"], now, f"a {node['class']}", where)
        if isinstance(now, tuple):
            before = list(now) + [None] * len(node["items"])
            made = tuple(self._value(v, before[i], f"{where}[{i}]") for i, v in enumerate(node["items"]))
            self._made[number] = made
            return made
        made = type(plain)() if plain is not None else now
        self._made[number] = made  # before its parts: they may lead back to it
        if isinstance(now, dict):
            earlier, found = dict(now), {}
            for key, value in node["items"]:
                found[key] = self._value(value, earlier.get(key), f"{where}[{key!r}]")
            made.clear()
            dict.update(made, found)
        elif isinstance(now, list):
            earlier = list(now) + [None] * len(node["items"])
            made[:] = [self._value(v, earlier[i], f"{where}[{i}]") for i, v in enumerate(node["items"])]
        if "attributes" in node:
            attributes = vars(now)
            found = {n: self._value(v, attributes.get(n), f"{where}.{n}") for n, v in node["attributes"]}
            attributes.clear()
            attributes.update(found)
        return made


def _is_code(value: Any) -> bool:
    """Whether it is a function or a method: code, and no object that happens to be called."""
    return hasattr(value, "__code__") or hasattr(value, "__func__") or type(value).__module__ == "builtins"


def _is_part(value: Any) -> bool:
    """Whether it is an object or code, which no number takes the place of."""
    return hasattr(value, "__dict__") or callable(value) or isinstance(value, np.random.Generator)


def _key(key: Any) -> Any:
    if isinstance(key, tuple):
        return tuple(_key(part) for part in key)
    return key.item() if isinstance(key, np.generic) else key


def _name(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _check(fits: bool, now: Any, wanted: str, where: str) -> None:
    if not fits:
        raise Misfit(f"{where} is a {_name(now)}, but what was saved is {wanted}")
