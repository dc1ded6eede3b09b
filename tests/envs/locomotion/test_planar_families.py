"""The planar families of the literature: members, masses, splits."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from somite.envs.locomotion import FAMILIES, build, get_split
from somite.envs.locomotion.bodies.families import find_member
from somite.envs.locomotion.bodies.model_edits import ASSETS

PLANAR = {"cheetah": 15, "walker": 6, "hopper": 3, "humanoid_2d": 8}


@pytest.mark.parametrize(("family", "count"), PLANAR.items())
def test_families_have_the_literatures_members_and_no_two_are_one_body(family, count):
    members = FAMILIES[family].members
    assert len(members) == count
    assert len({build(name).hash for name in members}) == count


@pytest.mark.parametrize("name", [n for family in PLANAR for n in FAMILIES[family].members])
def test_number_of_parts_is_what_the_name_says(name):
    digits = [int(part) for part in name.split("_") if part.isdigit()]
    if digits:
        assert build(name).n_limbs == digits[0]


def test_cheetahs_have_gymnasiums_torso_of_6_25_kg():
    original = mujoco.MjModel.from_xml_path(str(ASSETS / "half_cheetah.xml"))
    torso = original.body("torso").mass[0]
    assert torso == pytest.approx(6.25, abs=0.01)
    for name in FAMILIES["cheetah"].members:
        assert build(name).model.body("torso").mass[0] == torso
    legless = mujoco.MjSpec.from_file(str(ASSETS / "half_cheetah.xml"))
    legless.delete(legless.body("bthigh"))
    with pytest.warns(UserWarning, match="settotalmass"):
        assert legless.compile().body("torso").mass[0] > 8.9  # what would happen


@pytest.mark.parametrize("name", ["hopper_3", "hopper_5"])
def test_hoppers_are_one_chain_that_ends_in_gymnasiums_foot(name):
    body, gymnasiums = build(name), build("hopper_4")
    assert [limb.parent for limb in body.limbs] == list(range(-1, body.n_limbs - 1))
    foot, reference = body.model.body("foot"), gymnasiums.model.body("foot")
    assert foot.mass == reference.mass and np.array_equal(foot.inertia, reference.inertia)
    ours, theirs = (b.model.joint("foot_joint") for b in (body, gymnasiums))
    for field in ("range", "axis", "pos", "armature", "damping"):
        np.testing.assert_allclose(getattr(ours, field), getattr(theirs, field), err_msg=field)
    geom, reference = body.model.geom("foot_geom"), gymnasiums.model.geom("foot_geom")
    for field in ("size", "friction", "solref", "solimp", "margin", "contype", "conaffinity"):
        np.testing.assert_allclose(getattr(geom, field), getattr(reference, field), err_msg=field)
    np.testing.assert_allclose(body.model.actuator_gear[:, 0], 200)


def test_left_and_right_members_of_the_humanoid_are_bodies_of_equal_mass():
    for left, right in (("8_left_knee", "8_right_knee"), ("7_left_arm", "7_right_arm")):
        one, other = build(f"humanoid_2d_{left}"), build(f"humanoid_2d_{right}")
        assert one.mass == pytest.approx(other.mass) and one.hash != other.hash


@pytest.mark.parametrize("parts", range(2, 8))
def test_the_literatures_two_walkers_of_each_size_are_one(parts):
    for order in ("main", "flipped"):
        family, name = find_member(f"walker_{parts}_{order}")
        assert (family.name, name) == ("walker", f"walker_{parts}")
        assert build(f"walker_{parts}_{order}").hash == build(f"walker_{parts}").hash


def test_the_literatures_splits_hold_out_what_they_say():
    assert set(get_split("cheetah", "smp").unseen) == {
        "cheetah_4_front",
        "cheetah_5_balanced",
        "cheetah_6_front",
    }
    assert set(get_split("walker", "amorpheus").unseen) == {"walker_3", "walker_6"}
