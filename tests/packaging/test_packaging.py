import ast
import configparser
import functools
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("agents", "conf", "envs", "scripts")


def settings():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def lines(text):
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def requirements():
    parser = settings()
    return lines(parser["options"]["install_requires"]) + lines(parser["options.extras_require"]["dev"])


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def imports_of(path):
    """The imports of a file."""
    tree = ast.walk(ast.parse(path.read_text()))
    return [node for node in tree if isinstance(node, (ast.Import, ast.ImportFrom))]


@functools.cache
def python_files(*folders):
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """Names of the files in a wheel of this tree, built from a copy so that no leftover gets in."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    import shutil

    ignored = shutil.ignore_patterns("__pycache__")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        source,
    ]
    subprocess.run(command, check=True)
    (built,) = folder.glob("somite-*.whl")
    return set(zipfile.ZipFile(built).namelist())


def test_the_list_of_packages_is_the_tree():
    tree = {
        "somite." + ".".join(path.parent.relative_to(ROOT).parts)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert set(lines(settings()["options"]["packages"])) == tree


def test_every_folder_with_modules_is_a_package():
    for path in python_files(*FOLDERS):
        assert (path.parent / "__init__.py").exists(), path


def test_the_wheel_has_every_module_and_data_file(wheel):
    wanted = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    wanted += (ROOT / "conf").rglob("*.yaml")
    wanted += [path for folder in FOLDERS for path in (ROOT / folder).rglob("manifest.json")]
    wanted += [
        path for path in (ROOT / "agents" / "bundled").rglob("*.*") if path.parent.name != "__pycache__"
    ]
    wanted += [ROOT / "agents" / "evaluation" / "references.json"]
    missing = {f"somite/{path.relative_to(ROOT)}" for path in wanted} - wheel
    assert not missing
    assert "somite/__init__.py" not in wheel, "somite is a namespace"
    assert {name.split("/")[0] for name in wheel if ".dist-info" not in name} == {"somite"}


def test_the_console_scripts_are_there():
    scripts = dict(line.split(" = ") for line in lines(settings()["options.entry_points"]["console_scripts"]))
    assert scripts.keys() == {
        "somite-train",
        "somite-evaluate",
        "somite-cross-validate",
        "somite-benchmark",
        "somite-describe",
        "somite-view",
        "somite-export",
        "somite-references",
        "somite-results",
    }
    for target in scripts.values():
        module, function = target.split(":")
        tree = ast.parse((ROOT / (module.removeprefix("somite.").replace(".", "/") + ".py")).read_text())
        made = [target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
        assert function in [*made, *(n.name for n in tree.body if isinstance(n, ast.FunctionDef))], module


def test_nothing_imports_a_bare_folder():
    """Another distribution owns the name ``agents``, and a double import makes two copies of a class."""
    for path in python_files(*FOLDERS, "tests"):
        for node in imports_of(path):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            assert not [name for name in names if name.split(".")[0] in FOLDERS], path


def test_imports_within_a_folder_are_relative():
    for path in python_files("agents", "envs"):
        folder = path.relative_to(ROOT).parts[0]
        for node in imports_of(path):
            if isinstance(node, ast.ImportFrom) and not node.level:
                assert not (node.module or "").startswith(f"somite.{folder}"), path


def test_every_requirement_is_pinned_within_its_range():
    from packaging.requirements import Requirement

    pins = dict(line.split("==") for line in lines((ROOT / "constraints.txt").read_text()))
    pins = {normal(name): version for name, version in pins.items()}
    for text in requirements():
        requirement = Requirement(text)
        assert normal(requirement.name) in pins, requirement.name
        assert requirement.specifier.contains(pins[normal(requirement.name)]), text


def test_constraints_are_exact_and_name_no_source():
    for line in lines((ROOT / "constraints.txt").read_text()):
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line), line


def test_what_is_simulated_on_a_gpu_is_tested_without_one():
    """The extra and the tests' own packages are the same, so that parity is tested with what users get."""
    extras = settings()["options.extras_require"]
    assert set(lines(extras["gpu"])) <= set(lines(extras["dev"]))
    assert {normal(re.split(r"[<>=]", line)[0]) for line in lines(extras["gpu"])} == {
        "mujoco-warp",
        "warp-lang",
    }


def test_nothing_is_pinned_twice():
    pinned = [normal(line.split("==")[0]) for line in lines((ROOT / "constraints.txt").read_text())]
    assert len(set(pinned)) == len(pinned)


OPTIONAL = ("agents/export/", "agents/show/window_viewer.py", "envs/car_racing/", "envs/locomotion/")
"""Modules that may import at their top what is no requirement: they are imported where it is wanted."""


def test_what_the_code_imports_is_required():
    """At the top of a module only requirements are imported; within functions the extras, too."""
    provided = {"hydra": "hydra-core", "yaml": "pyyaml", "stable_baselines3": "stable-baselines3"}
    provided |= {"markdown_it": "markdown-it-py", "PIL": "pillow", "cv2": "opencv-python-headless"}
    provided |= {"pygame": "pygame-ce", "ale_py": "ale-py", "warp": "warp-lang", "mujoco_warp": "mujoco-warp"}

    def names_of(texts: str) -> set[str]:
        return {normal(re.split(r"[<>=!~\[]", text)[0]) for text in lines(texts)}

    required = names_of(settings()["options"]["install_requires"])
    extras = settings()["options.extras_require"]
    any_extra = set().union(*(names_of(text) for name, text in extras.items() if name != "dev"))
    for path in python_files(*FOLDERS):
        may_all = str(path.relative_to(ROOT)).startswith(OPTIONAL)
        for node in imports_of(path):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"somite"}:
                allowed = required | any_extra if may_all or node.col_offset else required
                assert normal(provided.get(name, name)) in allowed, f"{path} imports {name}"


def test_what_a_command_does_is_there():
    """A script names its function by text, which remains unread until a job begins."""
    found = [
        re.findall(r'"(somite\.[\w.]+):(\w+)"', path.read_text()) for path in (ROOT / "scripts").glob("*.py")
    ]
    targets = [target for targets in found for target in targets]
    assert len(targets) >= 6
    for module, function in targets:
        tree = ast.parse((ROOT / (module.removeprefix("somite.").replace(".", "/") + ".py")).read_text())
        assert function in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)], module
