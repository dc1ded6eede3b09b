"""What a limb observes: the columns of ``tokens`` and ``joints`` in locomotion tasks.

Every vector is expressed in the *yaw frame*: origin at the root, x along the root's heading in the
ground plane, z up. So nothing here changes when the body is moved along the ground or turned, and
nothing depends on a name or an index.
"""

from __future__ import annotations

from ..tokens import Feature, TokenSpec

LIMB_SPEC = TokenSpec(
    token=(
        Feature("position", 3, "state", "m", "limb origin relative to the root's, yaw frame"),
        Feature("height", 1, "state", "m", "limb origin above the ground below it"),
        Feature("velocity", 3, "state", "m/s", "velocity of the limb origin, yaw frame"),
        Feature("angular_velocity", 3, "state", "rad/s", "angular velocity, yaw frame"),
        Feature("orientation", 6, "state", "1", "limb's x and z axes, yaw frame"),
        Feature("direction", 2, "state", "1", "the task's direction on the ground, yaw frame"),
        Feature(
            "target_speed", 1, "state", "m/s", "speed asked for in that direction (0: the faster the better)"
        ),
        Feature(
            "target", 3, "state", "m", "from the limb origin to the task's target, yaw frame (0 without)"
        ),
        Feature("is_root", 1, "descriptor", "1", "1 for the root limb"),
        Feature("is_tip", 1, "descriptor", "1", "1 for the limb that reaches farthest from the root"),
        Feature("mass", 1, "descriptor", "kg", "mass"),
        Feature("center_of_mass", 3, "descriptor", "0.1 m", "centre of mass, limb frame"),
        Feature("gyration", 3, "descriptor", "0.1 m", "radii of gyration about the limb frame's axes"),
        Feature("size", 3, "descriptor", "0.1 m", "half extents of the geoms' bounding box, limb frame"),
        Feature("center", 3, "descriptor", "0.1 m", "centre of the geoms' bounding box, limb frame"),
        Feature("friction", 1, "descriptor", "1", "largest sliding friction of the limb's geoms"),
        Feature("attachment", 3, "descriptor", "0.1 m", "limb origin in the parent's frame (0 for a root)"),
    ),
    joint=(
        Feature("angle", 1, "state", "rad, m", "position minus its reference position"),
        Feature("phase", 1, "state", "1", "position in its range, -1 to 1 (0 where unlimited)"),
        Feature("speed", 1, "state", "rad/s, m/s", "velocity"),
        Feature("axis_now", 3, "state", "1", "joint axis, yaw frame"),
        Feature("activation", 1, "state", "1", "state of the actuator's filter or muscle (0 without)"),
        Feature("is_rotation", 1, "descriptor", "1", "1 for an axis of rotation, 0 for a slide or a tendon"),
        Feature("is_transmission", 1, "descriptor", "1", "1 for a tendon, thruster or other remote actuator"),
        Feature("axis", 3, "descriptor", "1", "axis of the joint or remote actuator, limb frame"),
        Feature("anchor", 3, "descriptor", "0.1 m", "joint anchor, limb frame"),
        Feature("is_limited", 1, "descriptor", "1", "1 where the joint has a range"),
        Feature("range", 2, "descriptor", "rad, m", "limits minus reference (0 where unlimited)"),
        Feature("rest", 1, "descriptor", "rad, m", "spring's rest minus reference (0 without spring)"),
        Feature("damping", 1, "descriptor", "10 N m s/rad", "damping"),
        Feature("stiffness", 1, "descriptor", "100 N m/rad", "spring stiffness"),
        Feature("armature", 1, "descriptor", "kg m^2", "rotor inertia"),
        Feature("is_actuated", 1, "descriptor", "1", "1 where an actuator drives this joint"),
        Feature("strength", 1, "descriptor", "100 N m", "half the span of force; below 0: control pulls"),
        Feature("control_range", 2, "descriptor", "1", "physical control of the actions -1 and 1"),
        Feature("position_gain", 1, "descriptor", "100 N m/rad", "servo: torque per angle off the target"),
        Feature("velocity_gain", 1, "descriptor", "10 N m s/rad", "servo: torque per speed off the target"),
        Feature("lag", 1, "descriptor", "s", "time constant of the actuator's filter (0 without)"),
    ),
)

TOKEN_STATES, JOINT_STATES = int(LIMB_SPEC.token_is_state().sum()), int(LIMB_SPEC.joint_is_state().sum())
"""Columns of tokens and of joints that come before their descriptors."""


def limb_descriptor_slice(name: str) -> slice:
    """Columns of the named feature among the descriptors of a limb."""
    columns = LIMB_SPEC.token_slice(name)
    return slice(columns.start - TOKEN_STATES, columns.stop - TOKEN_STATES)


def joint_descriptor_slice(name: str) -> slice:
    """Columns of the named feature among the descriptors of a joint row."""
    columns = LIMB_SPEC.joint_slice(name)
    return slice(columns.start - JOINT_STATES, columns.stop - JOINT_STATES)
