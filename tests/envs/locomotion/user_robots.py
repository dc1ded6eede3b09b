"""Small MJCF files as a user might bring them."""

from __future__ import annotations

import warnings
from pathlib import Path

from somite.envs.locomotion import Morphology
from somite.envs.locomotion.bodies.mjcf import load_morphology

MOTOR = '<motor joint="hip" gear="5" ctrlrange="-1 1"/>'


def load(folder: Path, text: str, quiet: bool = True) -> Morphology:
    """Read a robot from its text."""
    path = folder / "robot.xml"
    path.write_text(text)
    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore")
        return load_morphology("robot", path)


def walker(
    scene: str = "",
    height: float = 0.38,
    *,
    first: str = "",
    trunk: str = "",
    leg: str = "",
    shin: str = "",
    hip: str = 'range="-60 60"',
    root: str = '<freejoint name="free"/>',
    actuators: str = MOTOR,
    last: str = "",
) -> str:
    """A trunk with one leg, whose foot is 0.38 m below the trunk's origin; the arguments are put in."""
    return f"""
    <mujoco>
      {first}
      <worldbody>
        {scene}
        <body name="trunk" pos="0 0 {height}">
          {root}
          <geom name="trunk" type="box" size="0.2 0.1 0.05" {trunk}/>
          <body name="leg" pos="0 0 -0.05">
            <joint name="hip" axis="0 1 0" {hip}/>
            <geom name="leg" type="capsule" fromto="0 0 0 0 0 -0.3" size="0.03" {leg}/>
            {shin}
          </body>
        </body>
      </worldbody>
      {last}
      <actuator>{actuators}</actuator>
    </mujoco>"""


def arm(
    actuators: str,
    *,
    first: str = '<option gravity="0 0 0" integrator="implicitfast"/>',
    last: str = "",
    **joints: str,
) -> str:
    """An upper arm of 0.4 m on a fixed base, a forearm of 0.3 m on it; ``joints`` are their attributes."""
    shoulder = joints.get("shoulder", 'axis="0 1 0" range="-90 90" damping="0.5"')
    elbow = joints.get("elbow", 'axis="0 1 0" range="0 120" damping="0.5"')
    return f"""
    <mujoco>
      {first}
      <worldbody>
        <geom name="floor" type="plane" size="1 1 1"/>
        <body name="base" pos="0 0 0.5">
          <geom type="box" size="0.05 0.05 0.05"/>
          <site name="above" pos="0 0.05 0.1"/>
          <body name="upper">
            <joint name="shoulder" {shoulder}/>
            <geom type="capsule" fromto="0 0 0 0.4 0 0" size="0.03"/>
            <site name="biceps" pos="0.2 0 0.05"/>
            <body name="fore" pos="0.4 0 0">
              <joint name="elbow" {elbow}/>
              <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.02"/>
              <site name="wrist" pos="0.3 0 0" euler="0 30 50"/>
            </body>
          </body>
        </body>
      </worldbody>
      {last}
      <actuator>{actuators}</actuator>
    </mujoco>"""
