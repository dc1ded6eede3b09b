import ast
import configparser
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
        assert function in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)], target


def test_nothing_imports_a_bare_folder():
    """Another distribution owns the name ``agents``, and a double import makes two copies of a class."""
    for path in python_files(*FOLDERS, "tests"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            assert not [name for name in names if name.split(".")[0] in FOLDERS], path


def test_imports_within_a_folder_are_relative():
    for path in python_files("agents", "envs"):
        folder = path.relative_to(ROOT).parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
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


def simulates_on_a_gpu(path):
    """Whether a module belongs to the simulation by MuJoCo Warp, or decides about it."""
    return "locomotion" in path.parts or path == ROOT / "agents" / "device.py"


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


def test_what_the_code_imports_is_required():
    provided = {
        "hydra": "hydra-core",
        "yaml": "pyyaml",
        "stable_baselines3": "stable-baselines3",
        "markdown_it": "markdown-it-py",
        "PIL": "pillow",
    }
    provided |= {"cv2": "opencv-python-headless", "pygame": "pygame-ce", "ale_py": "ale-py"}
    provided |= {"warp": "warp-lang", "mujoco_warp": "mujoco-warp"}

    def names_of(texts: str) -> set[str]:
        return {normal(re.split(r"[<>=!~\[]", text)[0]) for text in lines(texts)}

    required = names_of(settings()["options"]["install_requires"])
    extras = settings()["options.extras_require"]
    pictures = names_of(extras["car_racing"]) | names_of(extras["atari"])
    exporting = names_of(extras["export"])
    viewing = names_of(extras["view"])
    computing = names_of(extras["ray"])
    on_a_gpu = names_of(extras["gpu"])
    for path in python_files(*FOLDERS):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"somite"}:
                draws = {"car_racing", "images", "gymnasium_source.py"} & set(path.parts)
                optional = pictures if draws else set()
                optional = exporting if path.parent.name == "export" else optional
                optional = viewing if path.parent.name == "show" else optional
                optional = computing if path.parent.name == "rollout" else optional
                optional = on_a_gpu if simulates_on_a_gpu(path) else optional
                found = normal(provided.get(name, name))
                assert found in required | optional, f"{path} imports {name}"
