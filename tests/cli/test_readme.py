"""What the README and the pages beside it say: its commands run, its tables are those of the code."""

from __future__ import annotations

import configparser
import importlib
import math
import re
import shlex
import shutil
import sys
from datetime import datetime
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from somite.agents.storage.paths import PATHS, absolute
from somite.agents.storage.run_folder import find_run
from somite.envs.locomotion.bodies.families import FAMILIES, get_split, load_manifest
from somite.scripts.cli import description
from tests.agents.runs import ROLLOUT, make_run, read_metrics
from tests.envs.locomotion.pictures.test_describe import ROBOT

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CONFIGURATION = configparser.ConfigParser()
CONFIGURATION.read(ROOT / "setup.cfg")
SCRIPTS = CONFIGURATION["options.entry_points"]["console_scripts"].strip().splitlines()
PROGRAMS = dict(line.split(" = ") for line in SCRIPTS)

TINY = {
    "somite-train": [
        "env.task.max_episode_steps=20",
        "env.variation.variants=2",
        "agent.width=16",
        "algorithm.total_steps=300",
        "algorithm.num_envs=12",
        "algorithm.n_steps=16",
        "algorithm.batch_size=64",
        "algorithm.n_epochs=1",
        "threads=1",
        "device=cpu",
    ],
    "somite-train sensors": [
        "env.max_episode_steps=20",
        "algorithm.total_steps=300",
        "algorithm.num_envs=12",
        "algorithm.n_steps=16",
        "algorithm.batch_size=64",
        "algorithm.n_epochs=1",
        "threads=1",
        "device=cpu",
    ],
    "somite-train racing": [
        "env.max_episode_steps=10",
        "algorithm.total_steps=60",
        "algorithm.num_envs=4",
        "algorithm.n_steps=8",
        "algorithm.batch_size=16",
        "algorithm.n_epochs=1",
        "threads=1",
        "device=cpu",
    ],
    "somite-train cma_es": [
        "env.max_episode_steps=20",
        "algorithm.generations=2",
        "algorithm.population=4",
        "algorithm.episodes=2",
        "threads=1",
        "device=cpu",
    ],
    "somite-evaluate": ["episodes=2", "device=cpu"],
    "somite-evaluate bundled": ["episodes=2", "device=cpu", "workers=1", "+env.max_episode_steps=20"],
    "somite-describe": ["width=64", "height=48"],
    "somite-view": [],
    "somite-export": [],
    "somite-references": ["episodes=2"],
    "somite-cross-validate": [
        "env.task.max_episode_steps=20",
        "algorithm.total_steps=300",
        "algorithm.num_envs=15",
        "algorithm.n_steps=16",
        "algorithm.n_epochs=1",
        "folds=[fold_0]",
        "episodes=1",
        "jobs=1",
        "device=cpu",
    ],
    "somite-results": [f"table={ROOT}/docs/results/results.yaml"],
    "somite-benchmark locomotion": ["num_envs=2", "seconds=0.05", "rounds=1", "iterations=0", "threads=1"],
    "somite-benchmark bodies": [
        "num_envs=2",
        "rows_per_topology=1",
        "topologies=[cheetah_2_back,cheetah_3_front]",
        "seconds=0.05",
        "rounds=1",
        "threads=1",
    ],
}
"""What makes each command small. It comes after the README's own arguments, the last one of a key counts."""
RESUMED = ["algorithm.total_steps=600"]


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    parts = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for name, text in parts if name == language]


def commands() -> list[list[str]]:
    """Every command of the shell blocks, and every one of ours in the text."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    lines += re.findall(r"`(somite-[a-z-]+ [^`]+)`", README)
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


OURS = [command for command in commands() if command[0] in PROGRAMS]


def tiny(command: list[str]) -> list[str]:
    """What makes this command small."""
    kind = " ".join(command[:2]) if command[0] == "somite-benchmark" else command[0]
    words = " ".join(command)
    if command[0] == "somite-train" and re.search("algorithm=(cma_)?es ", words):
        kind = "somite-train cma_es"
    elif command[0] == "somite-train" and "racing" in words:
        kind = "somite-train racing"
    elif command[0] == "somite-train" and re.search("swingup|gymnasium", words):
        kind = "somite-train sensors"
    elif command[0] == "somite-evaluate" and "bundled/" in words:
        kind = "somite-evaluate bundled"
    return TINY[kind]


def is_about_senses(command: list[str]) -> bool:
    """Whether it evaluates an agent of sensors."""
    return any(argument.startswith(("env.senses", "env.starts", "env.scenery")) for argument in command)


def those_before(command: list[str]) -> list[list[str]]:
    """The README's commands that make the last run one that this command fits."""
    words = " ".join(command)
    task = "racing" if "racing" in words or "env.scenery" in words else "swingup"
    wanted = [f"experiment={task}_teacher"]
    if "env.scenery" in words or "start_from=last" in words:
        wanted.append(f"experiment={task}_clone")
    return [c for name in wanted for c in OURS if name in c]


class Window:
    """A window that somebody closes after a moment."""

    shown = 0
    pressed = staticmethod(list)

    def __init__(self, *_: object) -> None:
        Window.shown = 0

    @property
    def is_open(self) -> bool:
        return Window.shown < 3

    def show(self, session: object) -> None:
        Window.shown += 1

    def close(self) -> None:
        pass


def run(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs one of our commands here, as the console script would."""
    module, function = PROGRAMS[command[0]].split(":")
    monkeypatch.setattr(sys, "argv", command)
    getattr(importlib.import_module(module), function)()


def run_once(command: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a tiny run of a command the last run: trained the first time, then copied under a new date."""
    kept = folder / "kept" / next(argument.split("=")[1] for argument in command if "experiment=" in argument)
    if not kept.exists():
        run([*command, *tiny(command)], monkeypatch)
        shutil.copytree(find_run("last"), kept)
    else:
        shutil.copytree(kept, folder / "runs" / f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}-{kept.name}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one tiny run, made by the README's first training command."""
    place = tmp_path_factory.mktemp("readme")
    first = next(command for command in OURS if command[0] == "somite-train")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        run([*first, *TINY["somite-train"]], patch)
    (made,) = (place / "runs").iterdir()
    (place / "runs" / "my_run").symlink_to(made.name)
    for kept in ("a-0", "a-1"):  # in place of the trained agents that the repository keeps
        shutil.copytree(made / "policy", place / "docs" / "results" / "cheetah_smp_split" / kept / "policy")
    (place / "path" / "to").mkdir(parents=True)
    (place / "path" / "to" / "robot.xml").write_text(ROBOT)
    return place


@pytest.fixture
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_every_program_of_the_shell_blocks_is_known() -> None:
    """A new one is to be run or checked here, too."""
    assert {command[0] for command in commands()} == {*PROGRAMS, "make", "pip", "python3", ".", "tensorboard"}
    assert len(OURS) > 8 and not blocks("bash") and not blocks("console") and not blocks("shell")


LONGEST = (
    *("-m seed=0,1,2", "racing_clone", "racing_ppo", "env.scenery", "benchmark locomotion", "describe env="),
    *("variation.draw=extrapolation", "env=walker", "env.bodies=[cheetah_7_full]", "suite=[unseen"),
    *("benchmark bodies", "suite=permutation", "cross-validate"),
)
"""Commands that other tests of the same kind, in this file or elsewhere, stand for in every run."""


def with_marks(command: list[str]) -> object:
    is_long = any(part in " ".join(command) for part in LONGEST)
    return pytest.param(command, marks=[pytest.mark.slow] if is_long else [])


def test_what_is_slow_is_there() -> None:
    assert all(any(part in " ".join(command) for command in OURS) for part in LONGEST)


@pytest.mark.parametrize("command", [with_marks(c) for c in OURS], ids=[" ".join(c) for c in OURS])
def test_every_command_runs_with_a_tiny_budget(
    command: list[str], in_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    resumed = any(argument.startswith("resume=") for argument in command)
    if is_about_senses(command) or {"algorithm.teacher=last", "start_from=last"} & set(command):
        for earlier in those_before(command):
            run_once(earlier, in_folder, monkeypatch)
    before = set((in_folder / "runs").iterdir())
    if "--help" in command:
        with pytest.raises(SystemExit, match="0"):
            run(command, monkeypatch)
        assert "env: ant, car_racing, cartpole_swingup, centipede" in capsys.readouterr().out
        return
    if command[0] == "somite-references":  # the last run is then a specialist's
        run(
            ["somite-train", "env=cheetah", "env.bodies=[cheetah_3_front]", *TINY["somite-train"]],
            monkeypatch,
        )
        before = set((in_folder / "runs").iterdir())
    if command[0] == "somite-view":
        monkeypatch.setattr("somite.agents.show.view.choose_viewer", lambda *_: "window")
        monkeypatch.setattr("somite.agents.show.view.make_viewer", Window)
    run([*command, *(RESUMED if resumed else tiny(command))], monkeypatch)
    made = {path for path in (in_folder / "runs").iterdir() if (path / "config.yaml").exists()} - before
    output = [argument.removeprefix("output=") for argument in command if argument.startswith("output=")]
    if command[0] == "somite-evaluate" and any(argument.startswith("suite=") for argument in command):
        name = command[1].removeprefix("run=")
        report = find_run("last") / "report" if name == "last" else Path("report") / Path(name).name
        assert "<table>" in (report / "report.html").read_text()
    elif command[0] == "somite-view":
        assert Window.shown > 1
    elif command[0] == "somite-evaluate" and output:
        assert "2 runs" in (in_folder / output[0] / "summary.md").read_text()
    elif command[0] == "somite-evaluate":
        assert (find_run("last") / "evaluation" / "results.json").is_file()
        assert is_about_senses(command) or "unseen" in capsys.readouterr().out
    elif command[0] == "somite-train":
        swept = [argument.count(",") + 1 for argument in command if not argument.startswith("env.bodies")]
        jobs = math.prod(swept) if "-m" in command else 0 if resumed else 1
        assert len(made) == jobs and all((run / "policy").is_dir() for run in made)
    elif command[0] == "somite-describe":
        described = {path.name for path in (in_folder / (output or ["describe"])[0]).iterdir()}
        assert "cheetah_7_full.png" in described or described == {"robot.png"}
    elif command[0] == "somite-cross-validate":
        assert (in_folder / output[0] / "report.md").is_file()
    else:
        assert (in_folder / (output or ["RESULTS.md"])[0]).is_file()


NOT_ALONE = {"-m", "--help", "resume=last"}
GROUPS = {"env", "agent", "algorithm", "experiment", "suite"}


def has_values(command: list[str]) -> bool:
    """Whether it sets keys, of which a tiny run may set another value."""
    keys = {argument.partition("=")[0] for argument in command[1:]}
    return not NOT_ALONE & set(command) and not keys <= {*GROUPS, "run", "video"}


@pytest.mark.parametrize("command", [c for c in OURS if has_values(c)], ids=" ".join)
def test_every_command_composes_with_its_own_values(
    command: list[str], in_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run([*command, "--cfg", "job"], monkeypatch)
    config = OmegaConf.create(capsys.readouterr().out)
    for argument in command[1:]:
        key, equals, _ = argument.partition("=")
        if equals and key not in GROUPS:
            wanted = OmegaConf.select(OmegaConf.from_dotlist([argument]), key)
            wanted = absolute(wanted, PATHS[key], in_folder) if key in PATHS else wanted
            assert OmegaConf.select(config, key) == wanted


def test_make_targets_exist() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = {command[1] for command in commands() if command[0] == "make"}
    named |= set(re.findall(r"`make ([\w-]+)`", README))
    assert named and named <= set(targets)


def test_pip_installs_what_is_there() -> None:
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    for command in (command for command in commands() if command[0] == "pip"):
        if "-e" in command:
            assert command[:3] == ["pip", "install", "-e"] and command[4:] == ["-c", "constraints.txt"]
            assert command[3][2:-1] in CONFIGURATION["options.extras_require"]
        else:
            assert command[2] in pins, "the version is the tested one"


def test_the_python_blocks_run(in_folder: Path) -> None:
    (block,) = blocks("python")
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    assert isinstance(names["reward"], float)
    names["env"].close()


def test_the_table_of_bodies_is_that_of_the_families() -> None:
    splits = load_manifest()["splits"]
    for name, family in FAMILIES.items():
        (row,) = re.findall(rf"^\| `{name}` \| (.*) \| (.*) \|$", README, re.MULTILINE)
        assert row[0].split()[0].rstrip(":") == ("endless" if family.draw else str(len(family.members)))
        own = [split for split in splits if name in splits[split]]
        assert own == re.findall(
            r"`(\w+)`", row[1].replace("`fold_0` to `fold_4`", " ".join(f"`fold_{k}`" for k in range(5)))
        )
        default = OmegaConf.load(ROOT / "conf" / "env" / f"{name}.yaml").split
        assert own[0] == default


def test_the_page_of_bodies_names_them_all() -> None:
    page = (ROOT / "docs" / "bodies.md").read_text()
    for name, family in FAMILIES.items():
        if family.draw:
            continue

        def short(bodies: tuple[str, ...], name: str = name) -> str:
            return ", ".join(body.removeprefix(f"{name}_") for body in bodies)

        assert f"| `{name}` | {short(tuple(family.members))} |" in page
        for split, families in load_manifest()["splits"].items():
            if name in families:
                chosen = get_split(name, split)
                seen = short(chosen.seen) if "seen" in families[name] else "all others"
                assert f"| `{name}` | `{split}` | {seen} | {short(chosen.unseen) or '-'} |" in page


def test_the_limb_observation_page_is_the_generated_one() -> None:
    page = (ROOT / "docs" / "limb_observation.md").read_text()
    assert all(table in page for table in description.limb_tables()), (
        "take them from: python -m somite.scripts.cli.description"
    )


PAGES = [ROOT / "README.md", ROOT / "RESULTS.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_kept_results_are_there(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert target.startswith("https://") or (page.parent / target).is_file(), target
    for place in re.findall(r"docs/results/[\w/*.-]*[\w*]", text):
        assert list(ROOT.glob(place)), place
    for place in re.findall(r"run=(docs/results/[\w/*.-]*[\w*])", text):
        assert list(ROOT.glob(f"{place}/policy/policy.json")), f"a command loads {place}, which is not kept"


def test_every_scalar_is_documented_and_every_documented_one_is_there(tmp_path: Path) -> None:
    make_run(tmp_path, f"algorithm.total_steps={2 * ROLLOUT}").learn()
    written = {
        key.partition("/")[0] + "/<name>" if key.startswith("bodies/") else key
        for key in read_metrics(tmp_path)[0]
    }
    page = (ROOT / "docs" / "scalars.md").read_text().partition("## Of other algorithms")[0]
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`([\w/<>]+)`", row.split("|")[1])}
    assert documented == written - {"step"}


def test_the_run_folder_is_as_described(in_folder: Path) -> None:
    made = {path.name for path in find_run("last").iterdir()}
    (layout,) = [block for block in blocks("") if block.startswith("runs/")]
    words = set(re.split(r"[\s,/]+", layout))
    for name in made:
        assert name in words or re.sub(r"^events\..*", "events.*", name) in words, name


def test_the_readme_can_be_read_in_a_terminal() -> None:
    assert max(len(line) for line in README.splitlines() if "|" not in line) <= 120
