"""``training_state/``: what a run goes on from, with a description that tells whether it is whole.

``state.pt`` holds tensors and plain values, read with ``weights_only=True``. ``state.json`` holds the size
and the checksum of that file, how far the run had come, and which versions, device and machine made it.

What other libraries' objects hold can often be kept by pickle alone, whose files can carry code. `take_graph`
takes only numbers, arrays and random streams out of such an object, with the dictionaries and lists that they
stand in and with who shares what; `put_graph` writes them into an object that was built alike. Everything
else, which is objects of any class, functions and words, is that of the object that is written into. So
nothing that a file says is called, imported or built.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...envs.errors import UserError
from .paths import command
from .policy_json import DESCRIPTION as POLICY_DESCRIPTION
from .policy_json import TENSORS, installed_version, read_description
from .run_folder import list_checkpoints, split_checkpoint, step_of
from .untrusted import read_json

FOLDER = "training_state"
STATE = "state.pt"
DESCRIPTION = "state.json"
FORMAT_VERSION = 2
PACKAGES = ("somite", "torch", "numpy", "mujoco", "gymnasium", "stable-baselines3", "cma")
_PLAIN = (bool, int, float, type(None))


class Misfit(ValueError):
    """Numbers of another object than the one that they are to be written into, or of none."""


def write_training_state(folder: str | Path, state: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Writes ``state.pt`` and its description into a new folder.

    Args:
        folder: Where to. Its parent is to be renamed into place when all of it is written.
        state: Tensors and plain values.
        facts: What the description tells beside format, size, checksum and versions: how far the run has come
            (``done``) of which key of its algorithm (``of``), the device, the machine.

    Raises:
        OSError: Something cannot be written.
    """
    import torch  # which the command line, that asks how far a run has come, does not need

    # In memory first: torch's own writer answers a full disk with another error than the system's.
    file = io.BytesIO()
    torch.save(dict(state), file)
    data = file.getbuffer()
    versions = {name: installed_version(name) for name in PACKAGES}
    description = {
        "format": FORMAT_VERSION,
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        **facts,
        "versions": versions | {"python": platform.python_version()},
    }
    folder = Path(folder)
    folder.mkdir()
    (folder / STATE).write_bytes(data)
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def read_training_state(checkpoint: str | Path) -> dict[str, Any]:
    """What `write_training_state` was given, after the whole checkpoint has been checked; runs no code.

    Args:
        checkpoint: ``<run>/checkpoints/<step>``.

    Raises:
        UserError: A file of the checkpoint is missing, truncated, altered or of another format, with the
            checkpoint before it that is whole and the command that goes on from that.
    """
    import torch

    checkpoint = Path(checkpoint)
    fault = find_fault(checkpoint)
    if fault is None:
        try:
            return torch.load(checkpoint / FOLDER / STATE, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            fault = f"{checkpoint / FOLDER / STATE} cannot be read: {reason}"
    raise UserError(f"{fault}; {_advice(checkpoint)}")


def read_facts(checkpoint: str | Path) -> dict[str, Any]:
    """What the ``state.json`` of a checkpoint says.

    Raises:
        UserError: It is missing or no description of a training state.
    """
    path = Path(checkpoint) / FOLDER / DESCRIPTION
    if not path.is_file():
        raise UserError(f"{path} is missing: the checkpoint is not whole")
    said = read_json(path, 2**20)
    for name, kind in {"format": int, "sha256": str, "size": int}.items():
        if not isinstance(said, dict) or not isinstance(said.get(name), kind):
            raise UserError(f"{path} is damaged: it has no {name}")
    if said["format"] != FORMAT_VERSION:
        raise UserError(
            f"{path} is of format {said['format']}, this version reads {FORMAT_VERSION}: resume the run with "
            "the version that made it"
        )
    return said


def find_fault(checkpoint: str | Path) -> str | None:
    """What is wrong with the files of a checkpoint, in words; None if all are as they were written."""
    policy, state = Path(checkpoint) / "policy", Path(checkpoint) / FOLDER / STATE
    try:
        said, of_policy = read_facts(checkpoint), read_description(policy / POLICY_DESCRIPTION)
    except UserError as error:
        return str(error).rstrip(".")
    for path, sha256, size in (
        (state, said["sha256"], said["size"]),
        (policy / TENSORS, of_policy["sha256"], None),
    ):
        try:
            found = path.stat().st_size
            if size is not None and found != size:
                what = "truncated" if found < size else "damaged"
                return f"{path} is {what}: it has {found:,} bytes, {size:,} were written"
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}"
        if digest != sha256:
            was = sha256[:12]
            return f"{path} was altered or truncated: its sha256 is {digest[:12]}, {was} was written"
    return None


def _advice(checkpoint: Path) -> str:
    run, step = split_checkpoint(checkpoint)
    before = list_checkpoints(run) if step is not None else []
    for other in reversed([path for path in before if step_of(path) < step]):
        if find_fault(other) is None:
            return f"{other} is whole; go on from it with: {command('somite-train', resume=other)}"
    return (
        f"{run} has no checkpoint before it that is whole; a new run can begin with what its policy/ or best/"
        " has learnt: somite-train start_from=<folder>"
    )


def take_graph(root: Any, left: Iterable[Any] = ()) -> list[Any]:
    """The numbers of all that can be reached from an object with attributes.

    Args:
        root: Where to begin.
        left: Objects that are left out: `put_graph` leaves its own as they are.

    Returns:
        Nodes, the first of them the root; plain values and tensors.
    """
    import torch

    nodes: list[Any] = []
    numbers: dict[int, int] = {}
    alive = list(left)  # so that no other object gets an id that is taken
    left = {id(one) for one in alive}

    def taken(value: Any) -> Any:
        if type(value) in _PLAIN:
            return value
        if isinstance(value, str):
            return {"word": value}
        if id(value) not in numbers:
            number = numbers[id(value)] = len(nodes)
            alive.append(value)
            nodes.append(None)
            nodes[number] = node(value)
        return {"node": numbers[id(value)]}

    def node(value: Any) -> dict[str, Any]:
        if id(value) in left:
            return {"kind": "left"}
        if isinstance(value, np.ndarray) and value.dtype != object:
            # Which of two orders an array lies in decides how its products are rounded.
            order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
            kept = np.array(value.T if order == "F" else value, order="C")
            return {"kind": "array", "order": order, "values": torch.from_numpy(kept)}
        if isinstance(value, np.generic):
            return {"kind": "number", "values": torch.from_numpy(np.array(value))}
        if isinstance(value, np.random.Generator):
            return {"kind": "stream", "state": value.bit_generator.state}
        parts: dict[str, Any] = {}
        if isinstance(value, dict):
            parts["items"] = [[_key(key), taken(item)] for key, item in value.items()]
        elif isinstance(value, (list, tuple)):
            parts["items"] = [taken(item) for item in value]
        if hasattr(value, "__dict__") and not isinstance(value, type) and not _is_code(value):
            parts["attributes"] = [[name, taken(item)] for name, item in vars(value).items()]
        return {"kind": "object", "class": _name(value), **parts} if parts else {"kind": "left"}

    taken(root)
    return nodes


def put_graph(root: Any, nodes: Any) -> None:
    """Inverse of `take_graph`, in place, for a ``root`` that was built like the one that was taken from.

    Arrays, lists and dictionaries are made anew, shared by whoever shared them; objects and streams of
    ``root`` are written into.

    Raises:
        Misfit: It was built otherwise, or these are no nodes. ``root`` may be half written then.
    """
    made: dict[int, Any] = {}

    def put(value: Any, now: Any, where: str) -> Any:
        """What takes the place of ``now``."""
        if type(value) in _PLAIN:
            _check(not _is_part(now), now, "a number or nothing", where)
            return value
        if "word" in value:
            # A word may be a name, a place or a formula: none of them comes from a file.
            _check(isinstance(now, str) and now == value["word"], now, repr(value["word"]), where)
            return now
        number = value["node"]
        if number not in made:
            node = nodes[number]
            if node["kind"] == "object":
                put_object(number, node, now, where)
            else:
                made[number] = leaf(node, now, where)
        return made[number]

    def leaf(node: dict[str, Any], now: Any, where: str) -> Any:
        kind = node["kind"]
        if kind == "left":
            _check(now is not None and not isinstance(now, _PLAIN), now, "something that is no number", where)
            return now
        if kind == "stream":
            _check(isinstance(now, np.random.Generator), now, "a random stream", where)
            now.bit_generator.state = node["state"]
            return now
        _check(not _is_part(now), now, f"an {kind}" if kind == "array" else f"a {kind}", where)
        values = node["values"].numpy().copy()
        if kind == "number":
            return values[()]
        return values.T if node["order"] == "F" else values

    def put_object(number: int, node: dict[str, Any], now: Any, where: str) -> None:
        plain = {"dict": dict, "list": list, "tuple": tuple}.get(node["class"])
        if plain is not None and type(now) is not plain:
            _check(not _is_part(now), now, f"a {node['class']}", where)
            now = plain()
        _check(_name(now) == node["class"], now, f"a {node['class']}", where)
        if not isinstance(now, tuple):  # before its parts, which may lead back to it
            made[number] = plain() if plain is not None else now
        if isinstance(now, dict):
            before = dict(now)
            items = {k: put(v, before.get(k), f"{where}[{k!r}]") for k, v in node["items"]}
            made[number].clear()
            dict.update(made[number], items)
        elif isinstance(now, (list, tuple)):
            before = [*now, *[None] * len(node["items"])]
            items = [put(v, before[i], f"{where}[{i}]") for i, v in enumerate(node["items"])]
            if isinstance(now, tuple):
                made[number] = tuple(items)
                return
            made[number][:] = items
        if "attributes" in node:
            attributes = vars(now)
            found = {n: put(v, attributes.get(n), f"{where}.{n}") for n, v in node["attributes"]}
            attributes.clear()
            attributes.update(found)

    name = type(root).__name__
    try:
        _check(nodes[0]["kind"] == "object", root, f"something that is {nodes[0]['kind']}", name)
        put({"node": 0}, root, name)
    except Misfit:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise Misfit(f"this is no saved {name}: {type(error).__name__}: {error}") from error


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
