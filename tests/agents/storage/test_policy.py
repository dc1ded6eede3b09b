import hashlib
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from somite.agents import Agent, load_policy, policies
from somite.agents.storage import atomic as atomic_folder
from somite.agents.storage import policy as checkpoint
from somite.agents.storage.policy import CheckpointError, save_policy
from somite.agents.storage.policy_json import read_description
from somite.envs.tokens import Feature, TokenSpec

SPEC = TokenSpec(
    token=(
        Feature("velocity", 3, "state", "m/s", "of the limb"),
        Feature("mass", 1, "descriptor", "kg", "mass"),
    ),
    joint=(Feature("angle", 2, "state", "rad", "of the joint"),),
)
ENVIRONMENT = {"family": "cheetah", "split": {"train": ["a", "b"], "unseen": ["c"]}}
TRAINING = {"algorithm": {"total_steps": 5_000_000}, "steps": 100, "seed": 1}


def policy(seed=0, **arguments):
    torch.manual_seed(seed)
    made = policies.LimbTransformer(spec=SPEC, **{"width": 8, "heads": 2, "feedforward": 16, **arguments})
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # more, and actions are all clipped
        for buffer in made.buffers():
            if buffer.dtype == torch.float64:
                buffer.add_(torch.rand_like(buffer) + 1)
    return made


def observation(*batch, limbs=4, joints=2, seed=0):
    random = np.random.default_rng(seed)
    parent = np.arange(-1, limbs - 1, dtype=np.int32)
    return {
        "tokens": random.normal(size=(*batch, limbs, 4)).astype(np.float32),
        "mask": np.ones((*batch, limbs), np.int8),
        "parent": np.broadcast_to(parent, (*batch, limbs)),
        "joints": random.normal(size=(*batch, limbs, joints, 2)).astype(np.float32),
        "joint_mask": np.ones((*batch, limbs, joints), np.int8),
        "action_mask": np.ones((*batch, limbs, joints), np.int8),
    }


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "run" / "policy"
    save_policy(folder, policy(), environment=ENVIRONMENT, training=TRAINING)
    return folder


def rewrite(folder, change):
    """Changes policy.json as a hostile or a careless person would."""
    values = json.loads((folder / "policy.json").read_text())
    change(values)
    (folder / "policy.json").write_text(json.dumps(values))


def test_a_loaded_policy_has_every_parameter_and_buffer(saved):
    agent = load_policy(saved)
    assert isinstance(agent, Agent) and agent.environment == ENVIRONMENT
    wanted = policy().state_dict()
    assert agent.policy.state_dict().keys() == wanted.keys()
    for key, value in agent.policy.state_dict().items():
        assert value.dtype == wanted[key].dtype and torch.equal(value, wanted[key]), key
    assert any(value.dtype == torch.float64 for value in wanted.values()), (
        "the normaliser has float64 buffers"
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: policies.SMP(spec=SPEC, width=8, message=4),
        lambda: policies.MLP(spec=SPEC, n_tokens=4, n_joints=2, width=8),
        lambda: policies.LimbTransformer(spec=SPEC, width=8, tree_encoding=True, critic="trunk"),
    ],
)
def test_every_policy_acts_the_same_after_saving(tmp_path, make):
    made = make()
    save_policy(tmp_path / "policy", made, environment={}, training={})
    before = Agent(made).act(observation(3))
    assert np.array_equal(load_policy(tmp_path / "policy").act(observation(3)), before)


def test_the_description_says_what_made_it(saved):
    values = read_description(saved / "policy.json")
    assert values["policy"]["_target_"] == "somite.agents.policies.LimbTransformer"
    assert values["training"] == TRAINING and values["environment"] == ENVIRONMENT
    assert {"somite", "torch", "mujoco", "gymnasium", "stable-baselines3", "python"} <= values[
        "versions"
    ].keys()
    assert values["sha256"] == hashlib.sha256((saved / "policy.safetensors").read_bytes()).hexdigest()


def test_a_run_folder_is_taken_for_its_policy(saved):
    assert load_policy(saved.parent).environment == ENVIRONMENT


def test_loading_leaves_the_random_state_alone(saved):
    before = torch.get_rng_state()
    load_policy(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_observation_and_a_batch_give_the_same_actions(saved):
    agent, batch = load_policy(saved), observation(5)
    actions = agent.act(batch)
    assert actions.shape == (5, 4, 2) and actions.dtype == np.float32 and np.abs(actions).max() <= 1
    assert actions.std(axis=0).max() > 1e-3
    single = agent.act({key: value[2] for key, value in batch.items()})
    np.testing.assert_allclose(single, actions[2], atol=1e-6)


def test_noise_has_a_stream_of_its_own(saved):
    def noisy():
        return load_policy(saved).act(observation(2), deterministic=False)

    state = torch.get_rng_state()
    first = noisy()
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(first, noisy())
    assert not np.array_equal(first, load_policy(saved).act(observation(2)))


def test_the_observation_is_not_changed(saved):
    given = observation(2)
    before = {key: value.copy() for key, value in given.items()}
    load_policy(saved).act(given, deterministic=False)
    assert all(np.array_equal(given[key], before[key]) for key in given)


def test_another_number_of_features_is_said_with_both_shapes(saved):
    wrong = observation(2) | {"tokens": np.zeros((2, 4, 7), np.float32)}
    with pytest.raises(ValueError, match=r"\(2, 4, 7\).*\(tokens, 4\).*velocity \(3\), mass \(1\)"):
        load_policy(saved).act(wrong)
    with pytest.raises(ValueError, match="lacks joints; it has tokens"):
        load_policy(saved).act({"tokens": np.zeros((4, 4), np.float32)})


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "somite.agents.policies.os.system",
        "somite.agents.policies.base.inspect",
        "somite.agents.policies.__class__",
        "somite.agents.policies.limb_policy",
        "somite.agents.policies.",
        "somite.agents.policies.../../evil",
        "somite.agents.storage.policy.load_policy",
        "torch.nn.Linear",
        ["somite.agents.policies.MLP"],
        None,
    ],
)
def test_only_policies_are_built(saved, target, monkeypatch):
    monkeypatch.setattr("os.system", lambda command: pytest.fail("ran code from a file"))
    rewrite(saved, lambda values: values["policy"].update(_target_=target))
    with pytest.raises(CheckpointError, match="only policies of somite|which is not of this package"):
        load_policy(saved)


def test_a_policy_of_a_file_that_exports_nothing_is_loaded(saved):
    """A new file in the folder of policies needs no list."""
    target = "somite.agents.policies.limb_policy.LimbTransformer"
    rewrite(saved, lambda values: values["policy"].update(_target_=target))
    assert type(load_policy(saved).policy) is policies.LimbTransformer


def test_a_misspelt_policy_gets_the_nearest(saved):
    rewrite(saved, lambda values: values["policy"].update(_target_="somite.agents.policies.LimbTransfomer"))
    with pytest.raises(CheckpointError, match="did you mean 'LimbTransformer'"):
        load_policy(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(format=99), "format version 99.*reads 1.*newer Somite"),
        (lambda v: v.update(contract=99), "contract version 99"),
        (lambda v: v.update(contract=0), "contract version 0.*converted"),
        (lambda v: v.pop("sha256"), "lacks sha256"),
        (lambda v: v["policy"].update(width=16), r"has shape .*, wanted .*16"),
        (lambda v: v["policy"].update(widht=16), "widht"),
        (lambda v: v["policy"].update(heads=3), "multiple of agent.heads"),
        (lambda v: v["policy"].update(layers=1), "is not part of the policy"),
        (lambda v: v["policy"].update(layers=3), "is missing"),
        (lambda v: v.update(spec={}), "cannot be built"),
        (lambda v: v.update(policy=[1]), "policy must be names and values"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(saved, change, message):
    rewrite(saved, change)
    with pytest.raises(CheckpointError, match=message):
        load_policy(saved)


def test_damaged_files_are_refused(saved):
    tensors, description = saved / "policy.safetensors", saved / "policy.json"
    whole = tensors.read_bytes()
    for damaged in (whole[:-1], whole[:100], b"", whole[:-4] + b"\0\0\0\1"):
        tensors.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="policy.safetensors is damaged"):
            load_policy(saved)
    # Also where the checksum was made to fit.
    tensors.write_bytes(whole[:100])
    rewrite(saved, lambda values: values.update(sha256=hashlib.sha256(whole[:100]).hexdigest()))
    with pytest.raises(CheckpointError, match="policy.safetensors is damaged"):
        load_policy(saved)
    tensors.unlink()
    with pytest.raises(CheckpointError, match="policy.safetensors cannot be read"):
        load_policy(saved)
    for text in ("", "{", "[]", "3", "[" * 100_000):
        description.write_text(text)
        with pytest.raises(CheckpointError, match="policy.json"):
            load_policy(saved)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_truncation_or_flipped_byte_of_the_description_fails_with_one_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("flip") / "policy"
    save_policy(
        folder, policies.SMP(spec=SPEC, width=4, message=2), environment=ENVIRONMENT, training=TRAINING
    )
    whole = (folder / "policy.json").read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        changed = whole[:place]
    else:
        changed = whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
    (folder / "policy.json").write_bytes(changed)
    try:
        load_policy(folder)  # a changed name of a body is not seen
    except CheckpointError:
        pass


def test_a_missing_folder_names_the_nearest(saved):
    with pytest.raises(CheckpointError, match="no run .*runn.*did you mean 'run'"):
        load_policy(saved.parent.parent / "runn")
    (saved.parent.parent / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no policy: expected policy.json and policy.safetensors"):
        load_policy(saved.parent.parent / "empty")


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    class Stranger(policies.LimbTransformer):
        pass

    with pytest.raises(CheckpointError, match="Stranger"):
        save_policy(tmp_path / "policy", Stranger(spec=SPEC), environment={}, training={})
    assert not list(tmp_path.iterdir())


def test_configurations_become_plain_values(tmp_path):
    from omegaconf import OmegaConf

    training = {"algorithm": OmegaConf.create({"rate": 1e-3, "twice": "${rate}"}), "steps": np.int64(3)}
    save_policy(tmp_path / "policy", policy(), environment={"mass": np.ones(2)}, training=training)
    values = read_description(tmp_path / "policy" / "policy.json")
    assert values["training"] == {"algorithm": {"rate": 1e-3, "twice": 1e-3}, "steps": 3}
    assert values["environment"] == {"mass": [1.0, 1.0]}


def test_a_failure_at_any_moment_leaves_the_old_or_the_new(saved, monkeypatch):
    """Every file operation of a save fails once; what is loaded is then the old or the new policy."""
    old, new = policy(0).log_std.item(), policy(1).log_std.item()
    assert old != new
    seen, names = set(), ("rename", "fsync", "open", "close")
    for name in names:
        for count in range(20):
            calls = iter(range(1000))
            original = getattr(atomic_folder.os, name)

            def failing(*arguments, calls=calls, count=count, original=original, **keywords):
                if next(calls) >= count:
                    raise KeyboardInterrupt  # as when the process is stopped: nothing after it works either
                return original(*arguments, **keywords)

            monkeypatch.setattr(atomic_folder.os, name, failing)
            try:
                save_policy(saved, policy(1), environment=ENVIRONMENT, training=TRAINING)
                stopped = False
            except KeyboardInterrupt:
                stopped = True
            monkeypatch.undo()
            found = load_policy(saved).policy.log_std.item()
            assert found in (old, new) and (stopped or found == new)
            seen.add(found == new)
            save_policy(saved, policy(0), environment=ENVIRONMENT, training=TRAINING)
            if not stopped:
                break
        left = [path.name for path in saved.parent.iterdir() if not path.name.startswith(".")]
        assert left == ["policy"], "only hidden remains of what was cut short"
    assert seen == {True, False}


def test_a_newer_folder_is_read_while_it_is_replaced(saved, monkeypatch):
    read, replaced = checkpoint.read_description, []

    def replacing(file):
        values = read(file)
        if not replaced:
            replaced.append(save_policy(saved, policy(1), environment=ENVIRONMENT, training=TRAINING))
        return values

    monkeypatch.setattr(checkpoint, "read_description", replacing)
    assert load_policy(saved).policy.log_std.item() == policy(1).log_std.item()
