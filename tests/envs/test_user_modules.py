"""Environments of a user's own module: imported because he names it, and for no other reason."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import pytest
from omegaconf import OmegaConf

from somite.agents.composition import build_policy
from somite.agents.evaluation.runs import task_of
from somite.agents.storage.policy import load_policy
from somite.agents.training.loop import Run
from somite.envs import user_modules
from somite.envs.errors import UserError
from somite.envs.images import GymnasiumImage
from somite.envs.sensors import GymnasiumTask, Senses
from somite.envs.task_set import task_set_of
from somite.scripts.cli.arguments import with_implied

MODULE = """
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv

class Mine(PendulumEnv):
    pass

gymnasium.register("Mine-v0", entry_point=Mine, max_episode_steps=9)
"""
NAMES = ("somite_mine", "somite_other")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a module in it."""
    (tmp_path / "somite_mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(user_modules, "_folder", None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv(user_modules.INHERITED, "")
    yield tmp_path
    for name in NAMES:
        sys.modules.pop(name, None)
    gymnasium.registry.pop("Mine-v0", None)


@pytest.mark.parametrize(
    ("env_id", "imports"),
    [("somite_mine:Mine-v0", ["somite_mine"]), ("Mine-v0", ["somite_mine"]), ("Mine-v0", "somite_mine")],
)
def test_a_module_of_the_current_folder_is_imported_when_it_is_named(env_id: str, imports: Any) -> None:
    task = GymnasiumTask(env_id, imports=imports)
    assert task.name == "Mine-v0" and task.max_episode_steps == 9
    task.make_vec(num_envs=1).close()
    assert GymnasiumTask("somite_mine:Mine-v0").name == "Mine-v0", "it has been imported already"


def test_the_folder_is_the_one_that_the_command_was_started_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_modules.look_in(folder)
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert GymnasiumTask("Mine-v0", imports=["somite_mine"]).name == "Mine-v0"


def test_modules_of_packages_and_ids_are_told_the_nearest_first(folder: Path) -> None:
    (folder / "somite_other" / "sub").mkdir(parents=True)
    (folder / "somite_other" / "sub" / "deep.py").touch()
    with pytest.raises(UserError, match="did you mean 'somite_other.sub.deep'"):
        GymnasiumTask("Mine-v0", imports=["somite_other.sub.dep"])
    many = "".join(f'gymnasium.register("Z{i}-v0", entry_point=Mine)\n' for i in range(2))
    before, last = MODULE.split("gymnasium.register(")
    (folder / "somite_mine.py").write_text(f"{before}{many}gymnasium.register({last}")
    with pytest.raises(UserError, match="registers Mine-v0, Z0-v0, Z1-v0"):
        GymnasiumTask("somite_mine:Mine", imports=["somite_mine"])
    for i in range(2):
        del gymnasium.registry[f"Z{i}-v0"]


@pytest.mark.parametrize("kind", [GymnasiumTask, GymnasiumImage])
@pytest.mark.parametrize(
    ("env_id", "imports", "said"),
    [
        ("somite_mine:Mine-v0", None, r"add env.imports=\[somite_mine\]"),
        ("somite_mine:Mine-v0", ["json"], r"add env.imports=\[json,somite_mine\]"),
        ("Mine-v0", None, "env.imports=.<module>"),
        ("Mine-v0", ["json"], "after the import of json, which registers no environment of its own"),
        ("somite_mine:Mine-v1", ["somite_mine"], "somite_mine, which registers Mine-v0"),
        ("Mine-v0", ["somite_mina"], "no module 'somite_mina'.*nor in .*did you mean 'somite_mine'"),
        ("Mine-v0", ["json.nothing"], "no module 'json.nothing'"),
        ("Mine-v0", ["./somite_mine.py"], r"did you mean env.imports=\[somite_mine\]"),
        ("Mine-v0", [3], r"env.imports must be .* got \[3\]"),
        ("Mine-v0", {"a": 1}, "env.imports must be"),
    ],
)
def test_one_message_says_what_to_type(kind: Any, env_id: str, imports: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        kind(env_id, imports=imports)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import numpyy", "ModuleNotFoundError: No module named 'numpyy' .*somite_other.py, line 1"),
        ("\nx = (", "SyntaxError: '.' was never closed .*somite_other.py, line 2"),
        ("raise OSError('no licence')", "OSError: no licence .*line 1"),
        ("import sys\nsys.exit(3)", "SystemExit: 3 .*line 2"),
        ("import json\njson.loads('{')", "JSONDecodeError: .*line"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_its_line(folder: Path, text: str, said: str) -> None:
    (folder / "somite_other.py").write_text(text)
    with pytest.raises(UserError, match=f"the module 'somite_other' cannot be imported: {said}"):
        GymnasiumTask("Mine-v0", imports=["somite_other"])


def test_a_command_line_that_names_a_module_in_the_id_asks_for_its_import() -> None:
    assert with_implied(["env.id=a.b:E-v0"])[-1] == "env.imports=[a.b]"
    assert with_implied(["env.imports=[c,'d']", "env.id=a:E,b:F"]) == [
        "env.id=a:E,b:F",
        "env.imports=[c,d,a,b]",
    ]
    assert with_implied(["env.id=a/b.py:E-v0"])[-1] == "env.imports=[a/b.py]", "which is told to be a.b"
    assert with_implied(["env.id=my-module:E-v0"])[-1] == "env.imports=[my-module]", "not of another name"
    for plain in (["env.id=ALE/Pong-v5"], ["env.imports=[a]"], ["env.id=E-v0", "env.imports=[a]"]):
        assert with_implied(plain) == plain


def test_modules_are_of_gymnasiums_tasks_alone() -> None:
    with pytest.raises(UserError, match="env.imports is of env=gymnasium; .* CartPoleSwingUp: leave it out"):
        task_of(load_policy("bundled/cartpole_swingup-sensor_mlp"), {"imports": ["json"]})


@pytest.mark.parametrize(
    ("imports", "agent", "said"),
    [
        (None, "somite.X", ""),
        (["a", "b.c"], "somite.X", ' "env.imports=[a,b.c]"'),
        (None, "a.X", " agent._target_=a.X"),
    ],
)
def test_a_run_says_with_which_modules_it_goes_on(imports: Any, agent: str, said: str) -> None:
    sections = {"env": {"_target_": "somite.Y", "imports": imports}, "agent": {"_target_": agent}}
    config = OmegaConf.create({**sections, "algorithm": {"_target_": "somite.Z"}})
    run = SimpleNamespace(folder=Path("runs/x"), config=config)
    assert Run._command_to(run, "somite-train", "resume") == f"somite-train resume=runs/x{said}"


def test_a_saved_policy_names_its_module_and_imports_nothing(folder: Path) -> None:
    from hydra import compose, initialize_config_module

    from somite.agents.storage.policy import save_policy

    config = {
        "_target_": "somite.envs.sensors.GymnasiumTask",
        "id": "Mine-v0",
        "imports": ["somite_mine"],
        "senses": {"_target_": "somite.envs.sensors.Senses"},
    }
    env = GymnasiumTask("Mine-v0", imports=["somite_mine"], senses=Senses()).make_vec(num_envs=1)
    with initialize_config_module("somite.conf", version_base="1.3"):
        policy = build_policy(compose("train", ["env=gymnasium", "agent=deep_set"]).agent, env)
    save_policy(folder / "p", policy, environment={"config": config}, training={})
    agent = load_policy(folder / "p")
    assert task_of(agent).name == "Mine-v0", "imported already"
    del sys.modules["somite_mine"], gymnasium.registry["Mine-v0"]
    with pytest.raises(
        UserError, match=r"which the module somite_mine registers.*add env.imports=.somite_mine"
    ):
        task_of(agent)
    with pytest.raises(UserError, match="no environment 'Mine-v0'"):
        task_set_of(agent.environment["config"])
    assert "somite_mine" not in sys.modules
    assert task_of(agent, {"imports": ["somite_mine"]}).name == "Mine-v0"
    assert json.loads((folder / "p" / "policy.json").read_text())["environment"]["config"]["imports"]


def test_a_process_that_a_command_starts_knows_the_classes_that_the_user_named_to_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = "somite_mine.Mine"
    assert user_modules.imported_class(target, gymnasium.Env, "somite.envs") is None
    assert user_modules.is_foreign(target) and "somite_mine" not in sys.modules
    mine = user_modules.own_class(target, "env._target_")
    assert user_modules.imported_class(target, gymnasium.Env, "somite.envs") is mine
    assert user_modules.imported_class(target, UserError, "somite.envs") is None, "of another kind"
    del sys.modules["somite_mine"]  # as in the other process, which stands elsewhere
    monkeypatch.setattr(user_modules, "_folder", None)
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert user_modules.imported_class(target, gymnasium.Env, "somite.envs").__name__ == "Mine"


def test_a_file_of_ours_needs_no_list() -> None:
    target = "somite.envs.sensors.senses.Senses"
    assert user_modules.imported_class(target, Senses, "somite.envs") is Senses
    for other in ("somite.envs.sensors.no_such.Senses", "somite.envs.../x.Senses", "os.system", "", None):
        assert user_modules.imported_class(other, object, "somite.envs") is None
