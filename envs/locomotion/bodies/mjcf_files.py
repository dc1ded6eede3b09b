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
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError

MOST_TEXT, MOST_ASSET = 32 * 2**20, 2**30
"""Bytes of the MJCF files of a robot together, and of a mesh, picture or the like."""

MOST_FILES, MOST_ELEMENTS, MOST_DEPTH = 1000, 200_000, 400
"""MJCF files and elements of a robot, and elements inside each other; MuJoCo's parser stops at 500."""

_MOST = {"files": MOST_FILES, "bytes of text": MOST_TEXT, "elements": MOST_ELEMENTS}
_FOLDERS, _STRIPS = ("meshdir", "texturedir", "assetdir"), "strippath"
"""Settings of the compiler by which files are found."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_TAG = re.compile(r"""<[^"'>]*(?:"[^"]*"[^"'>]*|'[^']*'[^"'>]*)*>""")
_LITERAL = r"""\sfile\s*=\s*(?:"([^"<&]*)"|'([^'<&]*)')"""
_NO_MJCF = "is no MJCF that MuJoCo reads"


@dataclass(frozen=True)
class _Mention:
    """A file that an element names, or a setting by which such files are found."""

    file: Path
    line: int
    element: str
    attribute: str
    name: str

    @property
    def place(self) -> str:
        return f'{self.file}, line {self.line}: <{self.element} {self.attribute}="{self.name}">'


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
    _Checker([os.path.realpath(folder) for folder in allowed or (path.parent,)]).check(path, ())


class _Checker:
    def __init__(self, roots: list[str]) -> None:
        self._roots, self._size, self._models = roots, dict.fromkeys(_MOST, 0), set[str]()

    def check(self, path: Path, outer: tuple[str, ...]) -> None:
        """A model, and those that it attaches. ``outer``: folders of the models that attach it."""
        if os.path.realpath(path) in self._models:
            return  # attached twice, or in a circle, which MuJoCo refuses
        self._models.add(os.path.realpath(path))
        base = os.path.dirname(os.path.abspath(path))
        mentions = self._mentioned(path, base)
        bases = tuple(dict.fromkeys((base, *outer)))
        folders = ["", *(mention.name for mention in mentions if mention.attribute in _FOLDERS)]
        strips = any(mention.attribute == _STRIPS and mention.name != "false" for mention in mentions)
        for mention in mentions:
            if mention.element == "include" or mention.attribute in (*_FOLDERS, _STRIPS):
                continue
            near = (*bases, os.path.dirname(os.path.abspath(mention.file)))
            names = {mention.name, *([os.path.basename(mention.name)] * strips)}
            inner = [os.path.join(at, folder, name) for at in near for folder in folders for name in names]
            for file in self._inside(mention, inner):
                _check_regular(file, mention.place, MOST_ASSET)
                if mention.element == "model":
                    self.check(Path(file), bases)

    def _mentioned(self, path: Path, base: str) -> list[_Mention]:
        """What a model's main file and the files that it includes name."""
        mentions, waiting, done = [], [path], set()
        while waiting:
            file = waiting.pop()
            if os.path.realpath(file) in done:
                continue  # a circle of includes, which MuJoCo refuses
            done.add(os.path.realpath(file))
            own = _mentions(file, self._content(file), is_main=file is path)
            mentions += own
            for mention in own:
                if mention.element == "include":
                    near = [os.path.join(at, mention.name) for at in (os.path.dirname(file) or ".", base)]
                    waiting += [Path(found) for found in self._inside(mention, near)]
        return mentions

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
            inside = all(
                any(os.path.commonpath([root, path]) == root for root in self._roots) for path in meanings
            )
            reachable |= inside
            if os.path.lexists(candidate) or os.path.lexists(os.path.normpath(candidate)):
                if not inside:
                    reachable = False
                    break
                there.append(os.path.normpath(candidate))
        if not reachable:
            raise UserError(
                f"{mention.place} lies outside {' and '.join(self._roots)}, and a robot reads files from "
                "there only; env.files_from=<folder> allows another folder, with all that is in it"
            )
        return there


def _mentions(file: Path, data: bytes, is_main: bool) -> list[_Mention]:
    """What one file names: every ``file...``, paths in a plugin's options, and the compiler's folders."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} {_NO_MJCF}: not UTF-8 ({error.reason} at byte {error.start})") from error
    data = _without_comments(text.removeprefix("\ufeff"), file).encode()
    parser = xml.parsers.expat.ParserCreate("utf-8")
    found, depth = [], 0

    def start(element: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        line = parser.CurrentLineNumber
        if depth > MOST_DEPTH:
            raise UserError(f"{file}, line {line}: more than {MOST_DEPTH} elements inside each other")
        if depth == 1 and is_main and element != "mujoco":
            raise UserError(f"{file} {_NO_MJCF}: it begins with <{element}>, not with <mujoco>")
        if element == "include" and "file" in attributes:
            # Here alone a reader's way with white space and entities decides which file is opened.
            begin = parser.CurrentByteIndex
            literal = re.search(_LITERAL, data[begin : data.index(b">", begin)].decode())
            if literal is None or attributes["file"] not in literal.groups():
                raise UserError(f"{file}, line {line}: <include> must name its file in plain characters")
        for attribute, value in attributes.items():
            # MuJoCo takes both for a separator, on every system.
            mention = _Mention(file, line, element, attribute, value.replace("\\", "/"))
            is_option = (element, attribute) == ("config", "value") and "/" in mention.name
            if element == "compiler" and attribute in (*_FOLDERS, _STRIPS):
                found.append(mention)
            elif value and (attribute.startswith("file") or is_option):
                if _SCHEME.match(value) or any(ord(character) < 32 for character in value):
                    raise UserError(f"{mention.place}: a plain path is expected, not an address")
                found.append(mention)

    def end(element: str) -> None:
        nonlocal depth
        depth -= 1

    parser.StartElementHandler, parser.EndElementHandler = start, end
    try:
        parser.Parse(data, True)
    except xml.parsers.expat.ExpatError as error:
        reason = xml.parsers.expat.ErrorString(error.code)
        raise UserError(f"{file} {_NO_MJCF}: no well-formed XML, line {error.lineno} ({reason})") from error
    return found


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
                    raise UserError(f"{file} {_NO_MJCF}: {opening} is not closed")
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
_KINDS = {  # of files that are no MJCF, the easiest to go on with first: how their names end, and what to do
    "MJCF": (".mjcf", "is MJCF, but MuJoCo reads files whose names end in .xml only; rename it"),
    "URDF": (
        ".urdf",
        "is a URDF; MJCF is read. MuJoCo converts many of them: {convert}; then motors are added, see "
        "docs/robots.md",
    ),
    "xacro": (
        ".xacro",
        "is a xacro, of which ROS makes a URDF: xacro {quoted} > robot.urdf. MuJoCo converts many URDFs to "
        "the MJCF that is read, see docs/robots.md",
    ),
    "SDF": (".sdf", f"is an SDF of Gazebo; MJCF is read. Export the robot as MJCF, or {_URDF}"),
    "USD": (
        ".usd .usda .usdc .usdz",
        f"is a USD scene; MJCF is read. Export the robot as MJCF, or {_URDF}",
    ),
    "binary": (
        ".mjb",
        "is a compiled model, which cannot be changed any more; name the MJCF file that it was made of",
    ),
    "archive": (
        ".zip .tar .tgz .gz .bz2 .xz .7z .rar .zst",
        "is an archive; unpack it, and name the MJCF file in it, or the folder",
    ),
    "mesh": (
        ".stl .obj .ply .dae .msh .glb .gltf .fbx .3ds .off .step .stp",
        'is a mesh, the shape of a part; name the MJCF file that has it as <mesh file="{name}"/>',
    ),
    "part": ("", "is a part of a robot (<mujocoinclude>); name the file that includes it"),
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
    convert, quoted = f"python -c {shlex.quote(code)}", shlex.quote(str(path))
    return _KINDS[kind][1].format(convert=convert, quoted=quoted, name=path.name)


def what_a_folder_holds(folder: Path, most: int) -> str:
    """What there is in place of MJCF files, in half a sentence; "" if the first ``most`` tell nothing."""
    found: dict[str | None, Path] = {}
    count = 0
    for at, _, names in os.walk(folder):
        for name in sorted(names):
            found.setdefault(_by_ending(name), Path(at, name))
        count += len(names)
        if count > most:
            break
    for kind in _KINDS:
        if kind in found:
            return f"{found[kind].relative_to(folder)} {what_it_is(found[kind]) or 'is no MJCF'}"
    return ""


def _kind(path: Path, begin: bytes) -> str | None:
    by_ending = _by_ending(path.name)
    for kind, starts in _BEGINNINGS.items():
        if begin.startswith(starts) or (kind == "archive" and begin[257:262] == b"ustar"):
            return "USD" if path.name.lower().endswith(".usdz") else kind
    root = _ROOT.search(re.sub(rb"<!--.*?-->", b"", begin, flags=re.DOTALL))
    if root is not None and begin.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        if root[1] == b"mujoco" and path.suffix.lower() != ".xml":
            return "MJCF"
        kind = _ROOTS.get(root[1].decode())
        # What it holds counts, whatever it is called.
        return "xacro" if kind == "URDF" and (by_ending == "xacro" or b"<xacro:" in begin) else kind
    return None if by_ending == "MJCF" else by_ending


def _by_ending(name: str) -> str | None:
    is_of = ((kind, ends.split()) for kind, (ends, _) in _KINDS.items())
    return next((kind for kind, ends in is_of if name.lower().endswith(tuple(ends))), None)
