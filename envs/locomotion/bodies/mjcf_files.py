"""Which files an MJCF file would make MuJoCo read, found before MuJoCo reads anything.

A robot may come from a stranger. What it includes, its meshes, textures and height fields, and the models
that it attaches must lie in a folder that is allowed; nothing is opened beyond. The text is read here as
strictly as no later reader does (UTF-8, no document type, hence no entities, well-formed), so that what
MuJoCo's own parser makes of it cannot be something else. What is no MJCF is told with what can be done.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import xml.parsers.expat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import UserError

MOST_TEXT, MOST_ASSET = 32 * 2**20, 2**30
"""Bytes of the MJCF files of a robot together, and of a mesh, picture or the like."""

MOST_FILES, MOST_ELEMENTS, MOST_DEPTH = 1000, 200_000, 400
"""MJCF files and elements of a robot, and elements inside each other; MuJoCo's parser stops at 500."""

_MOST = {"files": MOST_FILES, "bytes of text": MOST_TEXT, "elements": MOST_ELEMENTS}
_FOLDERS = ("meshdir", "texturedir", "assetdir")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_TAG = re.compile(r"""<[^"'>]*(?:"[^"]*"[^"'>]*|'[^']*'[^"'>]*)*>""")
_LITERAL = r"""\sfile\s*=\s*(?:"([^"<&]*)"|'([^'<&]*)')"""


@dataclass(frozen=True)
class _Mention:
    """A file that an element names: where it stands, and the folder of the file it stands in."""

    file: Path
    line: int
    element: str
    attribute: str
    name: str

    @property
    def place(self) -> str:
        """For a message."""
        return f'{self.file}, line {self.line}: <{self.element} {self.attribute}="{self.name}">'


@dataclass
class _Model:
    """What one model, with all that it includes, names."""

    includes: list[_Mention] = field(default_factory=list)
    assets: list[_Mention] = field(default_factory=list)
    models: list[_Mention] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    strips_paths: bool = False


def check_files(path: Path, *allowed: Path) -> None:
    """Refuses a robot that reads files from where it may not.

    Args:
        path: of the MJCF file.
        allowed: folders whose files it may read; none: its own.

    Raises:
        UserError: a file outside (also through ``..``, an absolute path or a link), a file that is no
            MJCF, too large or no regular file; with the line and the element.
    """
    if os.sep == "/" and "\\" in os.path.abspath(path):
        raise UserError(f"{os.path.abspath(path)} has a backslash, which MuJoCo reads as a slash: rename it")
    kind = what_it_is(path)
    if kind is not None:
        raise UserError(f"{path} {kind}")
    roots = [os.path.realpath(folder) for folder in allowed or (path.parent,)]
    _Checker(roots).check(path, ())


class _Checker:
    def __init__(self, roots: list[str]) -> None:
        self._roots, self._size, self._models = roots, dict.fromkeys(_MOST, 0), set[str]()

    def check(self, path: Path, outer: tuple[str, ...]) -> None:
        """A model, and those that it attaches. ``outer``: folders of the models that attach it."""
        if os.path.realpath(path) in self._models:
            return  # attached twice, or in a circle, which MuJoCo refuses
        self._models.add(os.path.realpath(path))
        base = os.path.dirname(os.path.abspath(path))
        model = self._model(path, base)
        bases = tuple(dict.fromkeys((base, *outer)))
        for mention in (*model.assets, *model.models):
            inner = [
                os.path.join(at, folder, name)
                for at in (*bases, os.path.dirname(os.path.abspath(mention.file)))
                for folder in ("", *model.folders)
                for name in {mention.name, *([os.path.basename(mention.name)] * model.strips_paths)}
            ]
            found = self._inside(mention, inner)
            for file in found:
                _check_regular(file, mention.place, MOST_ASSET)
                if mention in model.models:
                    self.check(Path(file), bases)

    def _model(self, path: Path, base: str) -> _Model:
        """Reads a model's main file and what it includes."""
        model, waiting, done = _Model(), [path], set[str]()
        while waiting:
            file = waiting.pop()
            if os.path.realpath(file) in done:
                continue  # a circle of includes, which MuJoCo refuses
            done.add(os.path.realpath(file))
            before = len(model.includes)
            _read_into(model, file, self._content(file), is_main=file is path)
            for mention in model.includes[before:]:
                near = [os.path.join(at, mention.name) for at in (os.path.dirname(file) or ".", base)]
                waiting += [Path(found) for found in self._inside(mention, near)]
        return model

    def _content(self, file: Path) -> bytes:
        """What is in one of the MJCF files. Raises UserError: with it the robot is too large."""
        _check_regular(str(file), str(file), MOST_TEXT)
        data = file.read_bytes()
        for unit, more in (("files", 1), ("bytes of text", len(data)), ("elements", data.count(b"<"))):
            self._size[unit] += more
            if self._size[unit] > _MOST[unit]:
                told = f"with it the robot has more than {_MOST[unit]:,} {unit}; so many are not read"
                raise UserError(f"{file}: {told}")
        return data

    def _inside(self, mention: _Mention, candidates: list[str]) -> list[str]:
        """Those of the places where MuJoCo may look that are there; none of them may be outside."""
        there, reachable = [], False
        for candidate in dict.fromkeys(candidates):
            # MuJoCo shortens a/../b in the name, the system follows links first.
            meanings = {os.path.realpath(candidate), os.path.realpath(os.path.normpath(candidate))}
            inside = all(self._is_inside(meaning) for meaning in meanings)
            reachable |= inside
            if os.path.lexists(candidate) or os.path.lexists(os.path.normpath(candidate)):
                if not inside:
                    raise self._refusal(mention)
                there.append(os.path.normpath(candidate))
        if not reachable:
            raise self._refusal(mention)
        return there

    def _is_inside(self, path: str) -> bool:
        return any(os.path.commonpath([root, path]) == root for root in self._roots)

    def _refusal(self, mention: _Mention) -> UserError:
        allowed = " and ".join(self._roots)
        return UserError(
            f"{mention.place} lies outside {allowed}, and a robot reads files from there only; "
            "env.files_from=<folder> allows another folder, with all that is in it"
        )


def _read_into(model: _Model, file: Path, data: bytes, is_main: bool) -> None:
    """Adds what one file names."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file} is no MJCF that MuJoCo reads: not UTF-8 ({error.reason} at byte {error.start})"
        ) from error
    data = _without_comments(text.removeprefix("\ufeff"), file).encode()
    parser = xml.parsers.expat.ParserCreate("utf-8")
    depth = 0

    def start(element: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        line = parser.CurrentLineNumber
        if depth > MOST_DEPTH:
            raise UserError(f"{file}, line {line}: more than {MOST_DEPTH} elements inside each other")
        if depth == 1 and is_main and element != "mujoco":
            raise UserError(
                f"{file} is no MJCF that MuJoCo reads: it begins with <{element}>, not with <mujoco>"
            )
        if element == "include" and "file" in attributes:
            # Here alone a reader's way with white space and entities decides which file is opened.
            begin = parser.CurrentByteIndex
            raw = data[begin : data.index(b">", begin)].decode()
            literal = re.search(_LITERAL, raw)
            if literal is None or attributes["file"] not in literal.groups():
                raise UserError(f"{file}, line {line}: <include> must name its file in plain characters")
        for mention in _mentions(file, line, element, attributes):
            kind = {"include": model.includes, "model": model.models}.get(element, model.assets)
            kind.append(mention)
        if element == "compiler":
            model.folders += [_plain_name(attributes[name]) for name in _FOLDERS if name in attributes]
            model.strips_paths |= attributes.get("strippath", "false") != "false"

    def end(element: str) -> None:
        nonlocal depth
        depth -= 1

    parser.StartElementHandler, parser.EndElementHandler = start, end
    try:
        parser.Parse(data, True)
    except xml.parsers.expat.ExpatError as error:
        reason = xml.parsers.expat.ErrorString(error.code)
        raise UserError(
            f"{file} is no MJCF that MuJoCo reads: no well-formed XML, line {error.lineno} ({reason})"
        ) from error


def _mentions(file: Path, line: int, element: str, attributes: dict[str, str]) -> Iterator[_Mention]:
    """Files that an element's attributes name: every ``file...``, and paths in a plugin's options."""
    for attribute, value in attributes.items():
        is_path = attribute.startswith("file") or (
            (element, attribute) == ("config", "value") and ("/" in value or "\\" in value)
        )
        if not is_path or not value:
            continue
        mention = _Mention(file, line, element, attribute, _plain_name(value))
        if _SCHEME.match(value) or any(ord(character) < 32 for character in value):
            raise UserError(f"{mention.place}: a plain path is expected, not an address")
        yield mention


def _plain_name(name: str) -> str:
    # MuJoCo takes both for a separator, on every system.
    return name.replace("\\", "/")


def _check_regular(path: str, place: str, most: int) -> None:
    try:
        found = os.stat(path)
    except OSError as error:
        raise UserError(f"{place} cannot be read: {path}: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{place} cannot be read: {path} is no regular file")
    if found.st_size > most:
        raise UserError(f"{place}: {path} has {found.st_size:,} bytes; at most {most:,} are read")


def _without_comments(text: str, file: Path) -> str:
    """The text with blanks for what stands in comments, which are often not well-formed (``<!-- -- -->``).

    Comments are told from attributes and character data as MuJoCo's parser tells them.

    Raises:
        UserError: a document type or another declaration, which could define entities.
    """
    parts, at = [], 0
    while (begin := text.find("<", at)) >= 0:
        parts.append(text[at:begin])
        for opening, closing in (("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>")):
            if text.startswith(opening, begin):
                end = text.find(closing, begin + len(opening))
                if end < 0:
                    raise UserError(f"{file} is no MJCF that MuJoCo reads: {opening} is not closed")
                at = end + len(closing)
                piece = text[begin:at]
                parts.append(re.sub(r"[^\n]", " ", piece) if opening == "<!--" else piece)
                break
        else:
            if text.startswith("<!", begin):
                line = text.count("\n", 0, begin) + 1
                raise UserError(f"{file}, line {line}: document types and entities are not read")
            tag = _TAG.match(text, begin)
            at = tag.end() if tag else len(text)
            parts.append(text[begin:at])
    return "".join([*parts, text[at:]])


_URDF = "as URDF, which MuJoCo converts, see docs/robots.md"
_KINDS = {
    "URDF": "is a URDF; MJCF is read. MuJoCo converts many of them: {convert}; then motors are added, see "
    "docs/robots.md",
    "xacro": "is a xacro, of which ROS makes a URDF: xacro {quoted} > robot.urdf. MuJoCo converts many URDFs "
    "to the MJCF that is read, see docs/robots.md",
    "SDF": f"is an SDF of Gazebo; MJCF is read. Export the robot as MJCF, or {_URDF}",
    "USD": f"is a USD scene; MJCF is read. Export the robot as MJCF, or {_URDF}",
    "binary": "is a compiled model, which cannot be changed any more; name the MJCF file that it was made of",
    "archive": "is an archive; unpack it, and name the MJCF file in it, or the folder",
    "mesh": 'is a mesh, the shape of a part; name the MJCF file that has it as <mesh file="{name}"/>',
    "part": "is a part of a robot (<mujocoinclude>); name the file that includes it",
    "MJCF": "is MJCF, but MuJoCo reads files whose names end in .xml only; rename it",
}
_ENDINGS = {
    "MJCF": (".mjcf",),
    "URDF": (".urdf",),
    "xacro": (".xacro",),
    "SDF": (".sdf",),
    "USD": (".usd", ".usda", ".usdc", ".usdz"),
    "binary": (".mjb",),
    "archive": (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar", ".zst"),
    "mesh": tuple(f".{end}" for end in "stl obj ply dae msh glb gltf fbx 3ds off step stp".split()),
}
_BEGINNINGS = {
    "archive": (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"),
    "USD": (b"PXR-USDC", b"#usda"),
    "mesh": (b"solid ", b"ply\n"),
}
_ROOTS = {"robot": "URDF", "sdf": "SDF", "mujocoinclude": "part", "COLLADA": "mesh"}
_ROOT = re.compile(rb"<([A-Za-z]\w*)")
_READ = 2**16


def what_it_is(path: Path) -> str | None:
    """What a file is that is no MJCF, in half a sentence with what to do; None: it may be MJCF."""
    if not path.is_file():
        return None  # a pipe would never end
    try:
        with path.open("rb") as file:
            begin = file.read(_READ)
    except OSError:
        return None
    if not begin.strip():
        return "is empty"
    kind = _kind(path, begin)
    if kind is None:
        return None
    code = (
        f"import mujoco; m = mujoco.MjModel.from_xml_path({json.dumps(str(path), ensure_ascii=False)}); "
        'mujoco.mj_saveLastXML("robot.xml", m)'
    )
    return _KINDS[kind].format(
        convert=f"python -c {shlex.quote(code)}", quoted=shlex.quote(str(path)), name=path.name
    )


def what_a_folder_holds(folder: Path, most: int) -> str:
    """What there is in place of MJCF files, in half a sentence; "" if the first ``most`` tell nothing."""
    found: dict[str, Path] = {}
    count = 0
    for at, _, names in os.walk(folder):
        for name in sorted(names):
            count += 1
            kind = _by_ending(name)
            if kind is not None:
                found.setdefault(kind, Path(at, name))
        if count > most:
            break
    for kind in _ENDINGS:  # what is easiest to go on with comes first
        if kind in found:
            return f"{found[kind].relative_to(folder)} {what_it_is(found[kind]) or 'is no MJCF'}"
    return ""


def _kind(path: Path, begin: bytes) -> str | None:
    by_content = next((kind for kind, starts in _BEGINNINGS.items() if begin.startswith(starts)), None)
    if by_content is None and begin[257:262] == b"ustar":
        by_content = "archive"
    by_ending = _by_ending(path.name)
    if by_content is not None:
        return "USD" if path.name.lower().endswith(".usdz") else by_content
    root = _ROOT.search(re.sub(rb"<!--.*?-->", b"", begin, flags=re.DOTALL))
    if root is not None and begin.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        kind = _ROOTS.get(root[1].decode())
        if root[1] == b"mujoco" and path.suffix.lower() != ".xml":
            return "MJCF"
        if kind == "URDF" and (by_ending == "xacro" or b"<xacro:" in begin):
            return "xacro"
        return kind  # what it holds counts, whatever it is called
    return None if by_ending == "MJCF" else by_ending


def _by_ending(name: str) -> str | None:
    name = name.lower()
    return next((kind for kind, ends in _ENDINGS.items() if name.endswith(ends)), None)
