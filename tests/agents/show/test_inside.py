"""What is shown of a policy's inside is what it acts by, and looking changes nothing."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from somite.agents import Agent, load_policy
from somite.agents.evaluation.episodes import run_episodes
from somite.agents.evaluation.runs import task_of
from somite.agents.policies import (
    AttentionNeuron,
    LimbTransformer,
    PatchCNN,
    PatchJigsaw,
    PatchTransformer,
    SensorTransformer,
)
from somite.agents.policies.layers import norm
from somite.agents.show.figures import attention_over_time, limb_graph
from somite.agents.show.inside import (
    attention_of,
    by_channel,
    channel_names,
    looks_inside,
    messages_of,
    record_inside,
)
from somite.envs.errors import UserError
from somite.envs.locomotion import BodySet, LocomotionTask
from somite.envs.sensors import CartPoleSwingUp, Senses
from tests.agents.policies.helpers import build
from tests.agents.show.sessions import session_of
from tests.observations import SPEC, permute_limbs, random_observation

KEPT = Path(__file__).parents[3] / "docs" / "results"
SIZES = {"n_actions": 1, "n_recent": 4, "n_privileged": 5}


def sensors_observation(seed: int = 0, batch: int = 3, n: int = 7) -> dict[str, np.ndarray]:
    """Random readings with histories of 4; two sensors of the second row are missing."""
    rng = np.random.default_rng(seed)
    mask = np.ones((batch, n), np.int8)
    mask[1, :2] = 0
    tokens = rng.normal(size=(batch, n, 4)).astype(np.float32) * mask[..., None]
    recent = rng.normal(size=(batch, 4, 1)).astype(np.float32)
    return {"tokens": tokens, "mask": mask, "recent_actions": recent}


def sensor_agent(kind: type, seed: int = 0, **given: object) -> Agent:
    torch.manual_seed(seed)
    policy = kind(Senses(history=4).spec(), **SIZES, **given)
    for parameter in policy.parameters():  # large, so that attention is far from uniform
        parameter.data.normal_(std=1.0 if parameter.dim() < 2 else 1.5 / parameter.shape[-1] ** 0.5)
    return Agent(policy)


def raw(observation: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in observation.items()}


@pytest.mark.parametrize("kind", [SensorTransformer, AttentionNeuron])
def test_shares_of_sensors_sum_to_one_move_with_the_sensors_and_leave_out_what_is_missing(kind: type) -> None:
    agent, observation = sensor_agent(kind), sensors_observation()
    for _ in range(3):  # memories are no longer empty
        agent.act(observation)
    shares = attention_of(agent, observation)
    assert shares.shape == (3, 7) and shares.min() >= 0 and shares.std() > 0.02
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-6)
    assert (shares[1, :2] == 0).all() and (shares[0, :2] > 0).all()

    order = np.array([3, 0, 6, 1, 5, 2, 4])
    moved = {
        key: value[:, order] if key in ("tokens", "mask") else value for key, value in observation.items()
    }
    other = sensor_agent(kind)
    for _ in range(3):
        other.act(moved)
    np.testing.assert_allclose(attention_of(other, moved), shares[:, order], atol=1e-5)
    assert np.abs(attention_of(other, moved) - shares).max() > 0.02, "the order is another one"


def test_nothing_to_attend_to_gives_shares_of_zero() -> None:
    observation = sensors_observation()
    observation["mask"][2] = 0
    observation["tokens"][2] = 0
    for kind in (SensorTransformer, AttentionNeuron):
        assert (attention_of(sensor_agent(kind), observation)[2] == 0).all()


def test_the_shares_of_a_sensor_transformer_are_those_it_reads_by() -> None:
    agent, observation = sensor_agent(SensorTransformer, queries=1), sensors_observation()
    seen = []
    agent.policy.gather.register_forward_hook(lambda module, given, result: seen.append((*given, result)))
    agent.act(observation)
    x, _, read = seen[0]
    shares = torch.from_numpy(attention_of(agent, observation)).float().unsqueeze(-2)
    with torch.inference_mode():
        values = agent.policy.gather.value(x)
    torch.testing.assert_close((shares @ values).flatten(-2), read, rtol=1e-4, atol=1e-5)
    uniform = values.mean(-2)
    assert (uniform - read).abs().max() > 0.05, "other shares would read something else"


def test_the_shares_of_the_attention_neuron_are_how_much_each_reading_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent, observation = sensor_agent(AttentionNeuron, rows=1), sensors_observation()
    agent.act(observation)
    shares = attention_of(agent, observation)
    observation, memory = agent.before_acting(observation)
    policy = agent.policy
    with torch.inference_mode():
        after = policy.encode(observation, memory)[1]
        # With the memory held, what is gathered is linear in the readings: its slopes are the weights.
        monkeypatch.setattr(policy.cell, "forward", lambda *given: after)
        slopes = []
        for sensor in range(7):
            tokens = torch.zeros_like(observation["tokens"])
            tokens[:, sensor, 0] = 0.1
            features = policy.encode({**observation, "tokens": tokens}, memory)[0]
            slopes.append(torch.atanh(features[:, 0]).abs() / 0.1)
    slopes = torch.stack(slopes, 1).numpy() * observation["mask"].numpy()
    np.testing.assert_allclose(shares, slopes / slopes.sum(-1, keepdims=True), atol=1e-4)


@pytest.mark.parametrize("tree", [False, True])
def test_limbs_take_from_each_other_what_is_shown(tree: bool) -> None:
    torch.manual_seed(0)
    policy = LimbTransformer(SPEC, width=16, heads=1, layers=2, tree_encoding=tree)
    for parameter in policy.parameters():
        parameter.data.normal_(std=1.5 / max(parameter.shape[-1:], default=1) ** 0.5)
    agent, observation = Agent(policy), raw(random_observation(0))
    blocks, met = policy.trunk.blocks, []
    for block in blocks:
        block.query_key_value.register_forward_hook(lambda module, given, result: met.append(result))
        block.up.register_forward_pre_hook(lambda module, given: met.append(given[0]))
        block.register_forward_pre_hook(lambda module, given: met.append(given[0]))
    agent.act(observation)
    found = met[:6]
    shares = torch.from_numpy(attention_of(agent, observation)).float()
    exists = torch.from_numpy(observation["mask"]).bool()
    assert shares.shape == (4, 2, 6, 6)
    for layer in range(2):
        x, query_key_value, after = found[3 * layer : 3 * layer + 3]
        expected = norm(x + shares[:, layer] @ query_key_value.chunk(3, -1)[2])
        torch.testing.assert_close(expected[exists], after[exists], rtol=1e-3, atol=1e-4)
        assert (norm(x) - after)[exists].abs().max() > 0.05
    np.testing.assert_allclose(shares.sum(-1).movedim(1, -1)[exists], 1, atol=1e-5)
    assert (shares.movedim(1, -1)[~exists] == 0).all(), "padding reads nothing"
    assert (shares.movedim(1, -1).movedim(2, 1)[~exists] == 0).all(), "and is not read"


@pytest.mark.parametrize("name", ["transformer_tree", "smp_both", "smp_up", "smp_down"])
def test_what_limbs_tell_moves_with_the_limbs(name: str) -> None:
    agent, observation = Agent(build(name)), random_observation(1)
    order = np.random.default_rng(1).permutation(6)
    first, moved = raw(observation), raw(permute_limbs(observation, order))
    if name.startswith("smp"):
        before, after = messages_of(agent, first), messages_of(agent, moved)
        assert list(before) == {"smp_both": ["up", "down"]}.get(name, [name.removeprefix("smp_")])
        for one, other in ((before[way], after[way]) for way in before):
            np.testing.assert_allclose(other, one[:, order], rtol=1e-3, atol=1e-4)
            assert np.abs(other - one).max() > 0.05
            roots = first["parent"] < 0
            assert (one[roots] == 0).all() and (one[~roots & (first["mask"] != 0)] > 0).all()
    else:
        before, after = attention_of(agent, first), attention_of(agent, moved)
        np.testing.assert_allclose(after, before[:, :, order][..., order], atol=1e-4)
        assert np.abs(after - before).max() > 0.05


def test_sizes_of_messages_are_of_what_arrives() -> None:
    """Along a chain every limb hears one other, so that what it hears is that one's message."""
    policy = build("smp_both")
    agent, observation = Agent(policy), raw(random_observation(2, batch=1, n_tokens=5))
    observation["parent"][0], observation["mask"][0] = [-1, 0, 1, 2, 3], 1
    heard: dict[str, list[float]] = {"up": [], "down": []}

    def listen(direction: str):  # noqa: ANN202
        return lambda module, given, result: heard[direction].append(float(result.norm()))

    policy.trunk.bottom_up.from_children.register_forward_hook(listen("up"))
    policy.trunk.top_down.from_parent.register_forward_hook(listen("down"))
    agent.act(observation)
    expected = {name: list(values) for name, values in heard.items()}
    sizes = messages_of(agent, observation)
    np.testing.assert_allclose(sizes["up"][0], [0, *expected["up"][::-1]], rtol=1e-4)
    np.testing.assert_allclose(sizes["down"][0], [0, *expected["down"]], rtol=1e-4)
    assert np.ptp(sizes["up"][0, 1:]) > 0.01, "they differ, so that a wrong order would show"


def test_who_has_nothing_to_look_at_says_so() -> None:
    cnn = PatchCNN(Senses(history=4).spec((36,)), (16, 16), 6, n_actions=3, n_recent=4, n_privileged=1)
    for policy in (cnn, build("smp_none"), build("mlp")):
        assert not looks_inside(policy)
    observation = raw(random_observation(0))
    assert attention_of(Agent(build("mlp")), observation) is None
    assert messages_of(Agent(build("smp_none")), observation) == {}
    cheetahs = BodySet("cheetah", task=LocomotionTask(max_episode_steps=5))
    kind = "SMP with agent.messages=none has neither attention nor messages.*: SMP, LimbTransformer"
    with pytest.raises(UserError, match=kind):
        record_inside(Agent(build("smp_none")), cheetahs, "cheetah_4_front")
    with pytest.raises(UserError, match="one body can be looked into at a time, but 'all' means 15"):
        record_inside(Agent(build("smp_both")), cheetahs, "all")
    with pytest.raises(UserError, match="steps"):
        record_inside(Agent(build("smp_both")), cheetahs, "cheetah_4_front", steps=0)


@pytest.mark.parametrize("run", ["clone-0", "cma_es-0"])
def test_a_record_is_of_the_episode_that_an_evaluation_runs(run: str) -> None:
    agent = load_policy(KEPT / "swingup" / run)
    changes = {"senses": {"shuffle": 30, "noise_channels": 2}, "starts": "fixed", "max_episode_steps": 100}
    task = task_of(agent, changes)
    record = record_inside(agent, task, "cartpole_swingup", seed=4)
    returns = run_episodes(agent, task, task.seen, 1, 4)[0].returns[0]
    assert sum(record.rewards.tolist()) == returns and len(record.rewards) == 100
    assert record.shuffles == (30, 60, 90)
    assert record.names == ("x", "x_dot", "cos_theta", "sin_theta", "theta_dot", "noise 1", "noise 2")
    np.testing.assert_allclose(record.attention.sum(1), 1, atol=1e-5)

    def careless(observation: dict[str, Tensor]) -> Tensor:
        agent.act(observation)  # as if looking advanced the memory
        return agent.act(observation)

    agent.reset()
    disturbed = run_episodes(careless, task, task.seen, 1, 4)[0].returns[0]
    assert (disturbed != returns) == (run == "cma_es-0"), "the evolved agent remembers, the student does not"


def test_rows_of_a_record_are_sensors_whatever_slot_shows_them() -> None:
    """The first steps of an episode are the same in any order: the state is, and so is each reading."""
    agent = load_policy(KEPT / "swingup" / "clone-0")
    records = [
        record_inside(agent, task_of(agent, {"senses": senses, "starts": "fixed"}), "cartpole_swingup", 1, 40)
        for senses in ({"shuffle": "never", "noise_channels": 0}, {"shuffle": "episode", "noise_channels": 0})
    ]
    plain, shuffled = (record.attention for record in records)
    np.testing.assert_allclose(plain, shuffled, atol=1e-3)
    assert plain.std(0).max() > 0.05 and np.abs(plain[:, ::-1] - plain).max() > 0.1


def test_numbers_return_to_the_channels_and_copies_have_names() -> None:
    assert by_channel(np.array([10, 20, 30]), np.array([2, 0, 1])).tolist() == [20, 30, 10]
    names = channel_names(("x", "v"), np.array([0, 1, 0, 1, 2, 2]))
    assert names == ("x", "v", "x (copy 1)", "v (copy 1)", "noise 1", "noise 2")


def test_patches_are_attended_to_in_shares() -> None:
    spec = Senses(history=4).spec((36,))
    transformer = PatchTransformer(spec, n_actions=3, n_recent=4, n_privileged=1, latents=2)
    rng = np.random.default_rng(0)
    mask = np.ones((2, 9), np.int8)
    mask[0, :3] = 0
    patches = {
        "tokens": rng.integers(0, 256, (2, 9, 144), dtype=np.uint8) * mask[..., None].astype(np.uint8),
        "mask": mask,
        "recent_actions": np.zeros((2, 4, 3), np.float32),
    }
    shares = attention_of(Agent(transformer), patches)
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-5)
    assert (shares[0, :3] == 0).all() and (shares[0, 3:] > 0).all()
    senses = Senses(history=4, traces=[30, 250])
    jigsaw = PatchJigsaw(senses.spec((36,), 3), (3, 3), n_actions=3, n_recent=4, n_privileged=1)
    patches["traces"] = rng.normal(size=(2, 9, jigsaw.spec.trace_size)).astype(np.float32)
    np.testing.assert_allclose(attention_of(Agent(jigsaw), patches).sum(-1), 1, atol=1e-5)


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of level texts of a figure that lie on each other, and any texts that leave it."""
    figure.canvas.draw()
    renderer, size = figure.canvas.get_renderer(), figure.canvas.get_width_height()
    texts = []
    for axes in figure.axes:
        labels = [axes.xaxis.label, axes.yaxis.label]
        for place, axis in enumerate((axes.xaxis, axes.yaxis)):
            low, high = sorted(axis.get_view_interval())
            labels += [text for text in axis.get_ticklabels() if low <= text.get_position()[place] <= high]
        texts += [text for text in [*axes.texts, *(labels if axes.axison else [])] if text.get_text()]
    wrong, boxes = [], []
    for text in texts:
        box, name = text.get_window_extent(renderer), text.get_text()
        if box.x0 < 0 or box.y0 < 0 or box.x1 > size[0] or box.y1 > size[1]:
            wrong.append((name, "edge"))
        if text.get_rotation() % 90 == 0:
            wrong += [(name, other) for other, place in boxes if box.shrunk(0.9, 0.9).overlaps(place)]
            boxes.append((name, box))
    return wrong


@pytest.mark.parametrize("run", ["limb_transformer-0", "smp-0"])
def test_pictures_of_limbs_show_all_text_and_where_the_messages_go(run: str) -> None:
    agent = load_policy(KEPT / "cheetah_smp_split" / run)
    record = record_inside(agent, task_of(agent), "cheetah_4_front", seed=1, steps=30)
    figure = limb_graph(record)
    assert not overlaps(figure)
    arrows = [patch for axes in figure.axes for patch in axes.patches if hasattr(patch, "get_arrowstyle")]
    limbs, edges = 4, 3
    assert len(arrows) == (2 * edges if run == "smp-0" else limbs * (limbs - 1))
    assert max(arrow.get_linewidth() for arrow in arrows) == pytest.approx(6.5)
    if run == "smp-0":
        with pytest.raises(UserError, match="SMP has no attention"):
            attention_over_time(record)
    else:
        assert not overlaps(attention_over_time(record))


def test_a_robot_of_one_limb_has_nobody_to_tell_anything(tmp_path: Path) -> None:
    (tmp_path / "cart.xml").write_text(
        "<mujoco><worldbody><body><joint name='x' type='slide'/><geom size='0.2'/></body></worldbody>"
        "<actuator><motor joint='x' ctrlrange='-1 1'/></actuator></mujoco>"
    )
    session = session_of("cheetah_smp_split/smp-0", {"morphology": str(tmp_path / "cart.xml")})
    with closing(session):
        assert session.messages and session.inside() == []
        with pytest.raises(UserError, match="has one limb"):
            limb_graph(record_inside(session.agent, session.task_set, session.body, steps=2))


def test_the_picture_of_sensors_marks_every_shuffle() -> None:
    agent = load_policy(KEPT / "swingup" / "clone-0")
    task = task_of(agent, {"senses": {"shuffle": 10}, "starts": "fixed"})
    record = record_inside(agent, task, "cartpole_swingup", steps=35)
    figure = attention_over_time(record)
    assert not overlaps(figure)
    marks = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "v"]
    assert marks == [9.5, 19.5, 29.5]
    with pytest.raises(UserError, match="cartpole_swingup has sensors and no limbs"):
        limb_graph(record)


def test_copies_of_a_sensor_get_the_same_attention() -> None:
    agent = sensor_agent(SensorTransformer)
    record = record_inside(agent, CartPoleSwingUp(Senses(history=4, duplicates=1)), "cartpole_swingup", 0, 5)
    assert record.names[5] == "x (copy 1)" and record.attention.shape[1] == 10
    np.testing.assert_allclose(record.attention[:, :5], record.attention[:, 5:], atol=1e-6)
