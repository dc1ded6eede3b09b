"""What a file is that is given for a robot and is none, and what can be done with it."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

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
    b"PK\x03\x04": "archive",
    b"\x1f\x8b": "archive",
    b"7z\xbc\xaf": "archive",
    b"Rar!": "archive",
    b"BZh": "archive",
    b"\xfd7zXZ": "archive",
    b"\x28\xb5\x2f\xfd": "archive",
    b"PXR-USDC": "USD",
    b"#usda": "USD",
    b"solid ": "mesh",
    b"ply\n": "mesh",
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
    """What there is in place of MJCF files, in half a sentence; "" if nothing is known of it.

    Args:
        folder: with the folders in it.
        most: files that are looked at.
    """
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
    by_content = next((kind for start, kind in _BEGINNINGS.items() if begin.startswith(start)), None)
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
