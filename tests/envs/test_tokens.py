"""What the columns of tokens and joints mean."""

from __future__ import annotations

import json

import numpy as np
import pytest

from somite.envs.errors import nearest
from somite.envs.locomotion import LIMB_SPEC
from somite.envs.tokens import LIMB_KEYS, Feature, TokenSpec, limb_observation_space

SPEC = TokenSpec(
    token=(Feature("place", 3, "state", "m", "where"), Feature("mass", 1, "descriptor", "kg", "how heavy")),
    joint=(Feature("angle", 1, "state", "rad", "how far"),),
)


def test_slices_follow_each_other_and_cover_every_column():
    for features, get, size in (
        (LIMB_SPEC.token, LIMB_SPEC.token_slice, LIMB_SPEC.token_size),
        (LIMB_SPEC.joint, LIMB_SPEC.joint_slice, LIMB_SPEC.joint_size),
    ):
        columns = [column for f in features for column in range(get(f.name).start, get(f.name).stop)]
        assert columns == list(range(size))
        assert len({feature.name for feature in features}) == len(features)


def test_state_columns_are_marked():
    np.testing.assert_array_equal(SPEC.token_is_state(), [True, True, True, False])
    np.testing.assert_array_equal(SPEC.joint_is_state(), [True])
    np.testing.assert_array_equal(TokenSpec(SPEC.token).joint_is_state(), [])
    with pytest.raises(KeyError, match="no feature 'size'"):
        SPEC.token_slice("size")


def test_a_specification_comes_back_from_json():
    assert TokenSpec.from_dict(json.loads(json.dumps(LIMB_SPEC.to_dict()))) == LIMB_SPEC


def test_the_space_has_the_contracts_keys_and_types():
    space = limb_observation_space(SPEC, n_limbs=3, n_joints=2)
    assert set(space) == set(LIMB_KEYS)
    assert {key: (box.shape, box.dtype.name) for key, box in space.items()} == {
        "tokens": ((3, 4), "float32"),
        "mask": ((3,), "int8"),
        "parent": ((3,), "int32"),
        "joints": ((3, 2, 1), "float32"),
        "joint_mask": ((3, 2), "int8"),
        "action_mask": ((3, 2), "int8"),
    }
    assert space["parent"].low[0] == -1 and space["parent"].high[0] == 2


def test_the_nearest_choice_is_named_and_a_far_one_is_not():
    assert nearest("cheeta", ["walker", "cheetah"]) == "did you mean 'cheetah'? choices: cheetah, walker"
    assert nearest("x", ["walker"]) == "choices: walker"
    assert nearest("x", []) == "choices: none"
