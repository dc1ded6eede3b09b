"""Cloning: what the teacher sees, what the student learns, what a run leaves behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from somite.agents import load_policy
from somite.agents.algorithms import Clone
from somite.agents.composition import sizes_for
from somite.agents.evaluation.episodes import run_episodes
from somite.agents.policies import MLP, LimbTransformer, SensorMLP
from somite.agents.storage.run_folder import last_checkpoint, list_checkpoints
from somite.agents.training.loop import Run
from somite.envs.errors import UserError
from somite.envs.locomotion import build
from somite.envs.locomotion.limb_spec import LIMB_SPEC
from somite.envs.sensors import CartPoleSwingUp, Senses
from somite.envs.token_env import TokenEnv
from tests.agents.evaluation.test_evaluate import evaluate
from tests.agents.runs import compose, read_metrics

GAINS = torch.tensor([[-0.4, -0.1, 0.3, 0.8, -0.2]])
"""Of the teacher: a plain linear law of the readings x, x_dot, cos, sin, theta_dot."""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy folder whose action is the tanh of a fixed linear law."""
    from somite.agents.storage.policy import save_policy

    task = CartPoleSwingUp()
    env = task.make_vec(num_envs=1)
    policy = SensorMLP(env.spec_of_tokens, **sizes_for(SensorMLP, env), width=8, layers=1)
    with torch.no_grad():
        first, last = policy.action[0], policy.action[2]
        first.weight.zero_()
        first.weight[0, :5] = 0.01 * GAINS  # in the linear part of the tanh
        last.weight.zero_()
        last.weight[0, 0] = 100.0
    folder = tmp_path_factory.mktemp("teacher") / "policy"
    config = {"_target_": "somite.envs.sensors.CartPoleSwingUp", "max_episode_steps": 1000}
    environment = {"config": config, "seen": ["cartpole_swingup"], "unseen": [], "hashes": {}}
    save_policy(folder, policy, environment=environment, training={})
    return folder


def never() -> bool:
    return False


SMALL = (
    "algorithm.num_envs=64",
    "algorithm.n_steps=16",
    "algorithm.batch_size=128",
    "algorithm.teacher_steps=0",
    "algorithm.total_steps=4096",
    "algorithm.checkpoint_every=2048",
    "device=cpu",
)


def make_clone(folder: Path, teacher: Path, *overrides: str) -> Run:
    given = (
        "env=cartpole_swingup",
        "env.max_episode_steps=50",
        "agent=sensor_transformer",
        "agent.width=16",
        "algorithm=clone",
        f"algorithm.teacher={teacher}",
        *SMALL,
    )
    return Run(compose(*given, *overrides), folder, torch.device("cpu"))


BACK, FRONT, THREE = BODIES = "cheetah_2_back", "cheetah_2_front", "cheetah_3_front"


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of policies of bodies, each with one action whatever it sees.

    Two specialists began with the generalist, so that they know of its bodies, too.
    """
    from somite.agents.storage.policy import save_policy

    folder = tmp_path_factory.mktemp("teachers")
    config = compose("env=cheetah").env
    known = {name: build(name).identity for name in BODIES}
    for name, (action, bodies) in {
        "general": (0.1, BODIES), "back": (0.5, (BACK,)), "front": (-0.5, (FRONT,)), "of/mlp": (0.3, (FRONT,))
    }.items():  # fmt: skip
        full = build(FRONT).full_body
        policy = LimbTransformer(LIMB_SPEC, width=8, layers=1)
        if name == "of/mlp":
            policy = MLP(LIMB_SPEC, n_tokens=full.n_limbs, n_joints=full.n_joints, width=8)
        last = policy.actor[-1] if name == "of/mlp" else policy.action_head.action
        with torch.no_grad():
            last.weight.zero_()
            last.bias.fill_(action)
        names = list(bodies)
        before = {FRONT: known[FRONT]} if name == "of/mlp" else known
        environment = {"config": {**config, "bodies": names}, "seen": names, "identities": before}
        save_policy(folder / name / "policy", policy, environment=environment, training={})
    return folder


def clone_bodies(folder: Path, teachers: Path, *overrides: str, names: str = "*") -> Run:
    """By default of all teachers but the one of aligned slots, which lies deeper."""
    given = ("env=cheetah", f"env.bodies=[{','.join(BODIES)}]", "env.task.max_episode_steps=50")
    whom = ",".join(f"'{teachers / name}'" for name in names.split(","))
    given = (*given, "agent=limb_transformer", "agent.width=16", "algorithm=clone", *SMALL, *overrides)
    return Run(compose(*given, f"algorithm.teacher=[{whom}]"), folder, torch.device("cpu"))


def test_each_body_is_taught_by_whom_was_trained_on_it_alone(tmp_path: Path, teachers: Path) -> None:
    learner = clone_bodies(tmp_path, teachers, "algorithm.teacher_steps=1").learner
    acted, begin = [], learner.env.begin
    learner.env.begin = lambda actions: acted.append(actions.clone()) or begin(actions)
    learner._collect(never)
    labels, mask = learner.buffer["labels"], learner.buffer.observations["action_mask"]  # (T, B, N, J)
    wanted = torch.tensor([0.5, -0.5, 0.1])[torch.from_numpy(learner.env.body_of_row)]
    torch.testing.assert_close(labels, wanted[:, None, None] * mask)
    assert torch.equal(torch.stack(acted), labels)
    # Bodies weigh the same however many joints they have, and padding has no weight.
    flat = mask.flatten(0, 1)
    joints = flat.flatten(1).sum(1)
    assert joints.min() < joints.max()
    errors = torch.where(flat != 0, joints.view(-1, 1, 1) * 0.1, 7.0)
    loss = learner._loss(labels.flatten(0, 1) + errors, labels.flatten(0, 1), flat)
    assert loss.item() == pytest.approx((joints * 0.1).square().mean().item(), rel=1e-5)


def test_a_teacher_with_a_slot_for_each_limb_has_them_aligned(tmp_path: Path, teachers: Path) -> None:
    run = clone_bodies(tmp_path, teachers, f"env.bodies=[{FRONT}]", names="of/mlp")
    assert run.learner.env.n_limbs > build(FRONT).n_limbs and not run.policy.aligned_slots
    first, last = (run.learner.update(never)["clone/loss"] for _ in range(2))
    assert 0 < last < first
    run.save()
    assert load_policy(tmp_path).environment["identities"] == {FRONT: build(FRONT).identity}
    again = clone_bodies(tmp_path, teachers, f"env.bodies=[{FRONT}]", names="front")
    assert again.changes.notes[-1] == "algorithm.teacher holds other policies than before"
    again.save()
    known = load_policy(tmp_path).environment["identities"]
    assert known.keys() == set(BODIES), "what a teacher has seen is not unseen, a new one's either"


def test_the_teacher_hands_over_row_by_row(tmp_path: Path, teacher: Path) -> None:
    settings = ("algorithm.teacher_steps=1024", "algorithm.handover_steps=2048", "algorithm.total_steps=4096")
    run = make_clone(tmp_path, teacher, *settings)
    learner, shares = run.learner, []
    acted, begin = [], learner.env.begin

    def watched(actions: torch.Tensor) -> None:
        taught = learner.teachers[0].act(learner.env.beside_observation())
        acted.append(np.isclose(actions, taught).all(1))
        begin(actions)

    learner.env.begin = watched
    for _ in range(4):
        shares.append(learner.teacher_share)
        learner.update(never)
    assert shares == [1.0, 1.0, 0.5, 0.0]
    rollouts = np.array(acted).reshape(4, 16, 64)
    assert rollouts[:2].all() and rollouts[3].mean() < 0.1
    by_row = rollouts[2].mean(0)
    assert set(by_row[by_row > 0.5]) == {1.0}, "a row has one actor for the whole rollout"
    assert 0.25 < (by_row == 1).mean() < 0.75


def test_shorter_episodes_of_the_student_leave_the_task_as_it_is(tmp_path: Path, teacher: Path) -> None:
    run = make_clone(tmp_path, teacher, "algorithm.episode_steps=20", "algorithm.total_steps=2048")
    run.learn()
    assert max(run.learner.episodes._lengths) == 20
    config = load_policy(tmp_path).environment["config"]
    assert config["max_episode_steps"] == 50
    longer = make_clone(tmp_path / "longer", teacher, "algorithm.episode_steps=1000")
    assert longer.learner.env.max_episode_steps == 50, "never longer than the task's own"
    with pytest.raises(UserError, match="algorithm.episode_steps must be a whole number of 1 or more"):
        Clone(teacher="x", episode_steps=0)


def test_the_teacher_sees_the_task_undisturbed() -> None:
    disturbed = Senses(history=2, shuffle=3, duplicates=1, noise_channels=2, missing=0.2, blinking=0.1)
    own = Senses(history=3)
    mixed = CartPoleSwingUp(disturbed).make_vec(num_envs=4, beside=own)
    plain = CartPoleSwingUp(own).make_vec(num_envs=4)
    mixed.reset(seed=1)
    wanted, _ = plain.reset(seed=1)
    rng = np.random.default_rng(0)
    for _ in range(150):  # episodes end and start again on the way
        seen = mixed.beside_observation()
        assert all(np.array_equal(seen[key], wanted[key]) for key in seen)
        actions = rng.uniform(-1, 1, (4, 1))
        wanted = plain.step(actions)[0]
        mixed.step(actions)
    with pytest.raises(UserError, match="undisturbed"):
        CartPoleSwingUp().make_vec(num_envs=1, beside=Senses(shuffle="episode"))


@pytest.mark.parametrize("agent", ["sensor_transformer", "deep_set"])
def test_an_invariant_student_learns_the_teachers_law(tmp_path: Path, teacher: Path, agent: str) -> None:
    more = ["agent.queries=4", "agent.head=16"] if agent == "sensor_transformer" else []
    run = make_clone(
        tmp_path, teacher, f"agent={agent}", *more, "env.senses.history=2", "algorithm.total_steps=14336",
        "algorithm.learning_rate=3e-3",
    )  # fmt: skip
    run.learn()
    losses = [float(row["clone/loss"]) for row in read_metrics(tmp_path)]
    assert losses[-1] < 0.4 * losses[0], losses


def test_the_labels_are_the_teachers_actions(tmp_path: Path, teacher: Path) -> None:
    run = make_clone(tmp_path, teacher, "env.senses.shuffle=episode")
    run.learner._collect(never)
    readings = run.learner.buffer.observations["privileged"].flatten(0, 1)
    wanted = torch.tanh(readings.clamp(-10, 10) @ GAINS.mT)  # as normalised readings are
    found = run.learner.buffer["labels"].flatten(0, 1)
    assert torch.allclose(found, wanted, atol=0.02)
    assert wanted.std() > 0.2, "a law that says something"


def test_the_teacher_drives_first_and_the_student_then(tmp_path: Path, teacher: Path) -> None:
    run = make_clone(tmp_path, teacher, "algorithm.teacher_steps=1024")
    acted = []
    env = run.learner.env
    begin = env.begin
    env.begin = lambda actions: acted.append(np.array(actions)) or begin(actions)
    labels = []
    for _ in range(2):
        run.learner._collect(never)
        labels.append(run.learner.buffer["labels"].numpy().copy())
    driven, own = np.array(acted[:16]), np.array(acted[16:])
    assert np.array_equal(driven, labels[0]) and not np.allclose(own, labels[1], atol=0.05)


def test_threads_change_nothing_but_the_order_of_sums(tmp_path: Path, teacher: Path) -> None:
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        run = make_clone(tmp_path / str(threads), teacher, "env.senses.noise_channels=2")
        torch.set_num_threads(1)
        assert (run.learner.network.shards is None) == (threads == 1)
        run.learner.update(never)
        found.append(torch.cat([p.detach().flatten() for p in run.policy.parameters()]))
    assert torch.allclose(*found, atol=1e-4)
    fresh = make_clone(tmp_path / "3", teacher, "env.senses.noise_channels=2").policy
    start = torch.cat([p.detach().flatten() for p in fresh.parameters()])
    assert not torch.allclose(found[0], start, atol=1e-2), "they have learnt"


def test_a_run_is_gone_on_with_and_evaluated(
    tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    make_clone(folder, teacher, "env.senses.history=2").learn()
    assert [int(path.name) for path in list_checkpoints(folder)] == [2048, 4096]
    with pytest.raises(UserError, match="raise algorithm.total_steps"):
        make_clone(folder, teacher, "env.senses.history=2").learn()
    again = make_clone(folder, teacher, "env.senses.history=2", "algorithm.total_steps=6144")
    saved = load_policy(last_checkpoint(folder)).policy.state_dict()
    assert all(torch.equal(value, saved[key]) for key, value in again.policy.state_dict().items())
    assert again.learner.optimizer.state_dict()["state"], "the optimiser's moments"
    again.learn()
    assert [int(row["step"]) for row in read_metrics(folder)] == [1024 * i for i in range(1, 7)]
    page = (Path(__file__).parents[3] / "docs" / "scalars.md").read_text()
    logged = {name for name in read_metrics(folder)[-1] if not name.startswith("bodies/")} - {"step"}
    assert all(f"`{name}`" in page for name in logged)
    (row,) = evaluate(folder, "env.senses.shuffle=10", "env.senses.noise_channels=2")
    assert row.body == "cartpole_swingup" and np.isfinite(row.mean)


def test_a_student_learns_in_bf16_and_acts_in_it(tmp_path: Path, teacher: Path) -> None:
    losses = []
    for precision in ("float32", "bf16"):
        run = make_clone(tmp_path / precision, teacher, f"precision={precision}")
        assert run.learner.network.precision == precision
        losses.append([run.learner.update(never)["clone/loss"] for _ in range(4)])
        assert all(p.dtype == torch.float32 for p in run.policy.parameters())
    exact, rounded = np.array(losses)
    assert not np.array_equal(exact, rounded), "it is computed in another precision"
    assert np.allclose(exact, rounded, rtol=0.1), "and learns the same"


def test_cloning_is_simulated_by_torch_where_that_is_asked_for(
    tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a device whose numbers the host would have to wait for."""
    settings = ("algorithm.total_steps=2048", "algorithm.teacher_steps=1024", "env.senses.shuffle=episode")
    assert make_clone(tmp_path / "a", teacher).task_set.simulation == "cpu"
    learnt = []
    for name, waits in (("b", True), ("c", False)):
        monkeypatch.setattr(TokenEnv, "knows_ends", waits)
        run = make_clone(tmp_path / name, teacher, "simulation=torch", *settings)
        run.learn()
        assert run.task_set.simulation == "torch"
        learnt.append(torch.cat([p.detach().flatten() for p in run.policy.parameters()]))
    torch.testing.assert_close(*learnt, rtol=0, atol=2e-3)  # but for rounding
    losses = [float(row["clone/loss"]) for row in read_metrics(tmp_path / "c")]
    assert losses[-1] < losses[0]


def test_what_cannot_be_cloned_is_said(tmp_path: Path, teacher: Path) -> None:
    with pytest.raises(UserError, match="whom to clone"):
        Clone()
    with pytest.raises(UserError, match="There is no run 'nobody'"):
        make_clone(tmp_path / "b", Path("nobody"))
    with pytest.raises(UserError, match="a SensorMLP, which reads sensors, not limbs"):
        config = compose("env=ant", "agent=smp", "algorithm=clone", f"algorithm.teacher={teacher}")
        Run(config, tmp_path / "c", torch.device("cpu"))
    with pytest.raises(UserError, match=r"trained on cartpole_swingup, the student .* scaled"):
        make_clone(tmp_path / "d", teacher, "env.sensor_scales=[1,1,1,1,2]")


def test_bodies_that_cannot_be_taught_are_said(tmp_path: Path, teacher: Path, teachers: Path) -> None:
    with pytest.raises(UserError, match=f"no teacher was trained on {BACK}, {THREE}. .*front.* on {FRONT}"):
        clone_bodies(tmp_path, teachers, names="front")
    with pytest.raises(UserError, match=rf"front\S* and \S*mlp\S* were all trained on {FRONT} and "):
        clone_bodies(tmp_path, teachers, names="general,front,of/mlp")
    with pytest.raises(UserError, match="algorithm.num_envs is 2, but 3 bodies are trained on"):
        clone_bodies(tmp_path, teachers, "algorithm.num_envs=2")
    with pytest.raises(UserError, match="names 2 policies: .* a task of sensors has one teacher"):
        make_clone(tmp_path, f"[{teacher},{shutil.copytree(teacher, tmp_path / 'copy')}]")


def test_the_teachers_law_is_what_its_folder_says(teacher: Path) -> None:
    agent = load_policy(teacher)
    returns = run_episodes(agent.act, CartPoleSwingUp(max_episode_steps=20), ("cartpole_swingup",), 3, 0)
    assert returns[0].lengths.max() == 20
