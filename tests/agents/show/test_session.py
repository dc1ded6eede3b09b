"""Sessions without a window: what keys do to body and senses, and what is said."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from somite.agents.evaluation.episodes import run_episodes
from somite.agents.show.session import PUSH, SPEEDS, Session
from somite.envs.errors import UserError
from tests.agents.show.sessions import CALM, agent_of, session_of


@pytest.fixture
def cheetah() -> Iterator[Session]:
    """SMP on a cheetah of four limbs and on the whole one."""
    session = session_of("cheetah_smp_split/smp-0", None, ["cheetah_4_front", "cheetah_7_full"])
    yield session
    session.close()


def play(session: Session, steps: int) -> np.ndarray:
    """Rewards of so many steps."""
    rewards = []
    for _ in range(steps):
        session.advance()
        rewards.append(session.reward)
    return np.array(rewards)


@pytest.mark.parametrize(
    ("run", "changes", "body"),
    [
        ("cheetah_smp_split/smp-0", {"task": {"max_episode_steps": 60}}, "cheetah_4_front"),
        ("bundled/cheetah-mlp", {"task": {"max_episode_steps": 60}}, "cheetah_4_front"),
        ("swingup/cma_es-0", {**CALM, "max_episode_steps": 60}, "cartpole_swingup"),
        ("swingup/clone-0", {"senses": {"shuffle": 20}, "max_episode_steps": 60}, "cartpole_swingup"),
    ],
)
def test_nobody_presses_anything_and_it_is_the_episode_of_an_evaluation(
    run: str, changes: dict, body: str
) -> None:
    session = session_of(run, changes, body)
    for episode in range(2):
        while not session.ended:
            session.advance()
        agent = session.agent
        if episode == 0:
            act, aligned = agent_of(run), agent.policy.aligned_slots
            returns = run_episodes(act.act, session.task_set, [body], 1, 7, aligned=aligned, threads=1)
            assert session.total == returns[0].returns[0] and session.steps == returns[0].lengths[0]
        assert session.episode == episode and f"episode {episode} ended after" in session.said
        session.advance()
    assert session.episode == 2 and session.steps == 0 and session.total == 0


def test_a_push_changes_the_velocity_by_what_is_said_and_only_once(cheetah: Session) -> None:
    def velocity() -> float:
        return float(cheetah.env.get_state(0)[1][0])

    velocities = {}
    for key in (None, "push", "push_back"):
        cheetah.press("restart")
        play(cheetah, 5)
        if key:
            cheetah.press(key)
        cheetah.advance()
        first = cheetah.env.simulated(0)[1].subtree_linvel[0].copy()
        velocities[key] = (velocity(), first)
        assert (cheetah.env.simulated(0)[1].xfrc_applied != 0).any() == bool(key)
        cheetah.advance()
        assert not cheetah.env.simulated(0)[1].xfrc_applied.any(), "the force lasts one step"
    gained = velocities["push"][0] - velocities[None][0]
    lost = velocities["push_back"][0] - velocities[None][0]
    assert 0.4 * PUSH < gained < 2 * PUSH and -2 * PUSH < lost < -0.4 * PUSH


def test_a_locked_joint_holds_and_the_others_do_not(cheetah: Session) -> None:
    cheetah.press("next")
    names = [part.name for part in cheetah.parts]
    assert cheetah.body == "cheetah_7_full" and names[cheetah.chosen] == "bthigh"
    play(cheetah, 10)
    cheetah.press("choose")
    cheetah.press("lock")
    assert cheetah.said == "bshin: locked" and ("broken", "bshin locked") in cheetah.text()
    model = cheetah.env.simulated(0)[0]
    at = {name: int(model.jnt_qposadr[model.joint(name).id]) for name in names}
    before = cheetah.env.get_state(0)[0]
    moved = np.zeros(len(before))
    for _ in range(30):
        cheetah.advance()
        moved = np.maximum(moved, np.abs(cheetah.env.get_state(0)[0] - before))
    assert moved[at["bshin"]] < 1e-3 and moved[at["bthigh"]] > 0.1 and moved[at["bfoot"]] > 0.1
    cheetah.press("lock")
    assert cheetah.said == "bshin: nothing there that can be locked and is not yet broken"
    cheetah.press("choose_back")
    cheetah.press("lock_leg")
    assert cheetah.said == "bthigh, bfoot: locked", "the leg, but for what is locked"
    before = cheetah.env.get_state(0)[0]
    play(cheetah, 10)
    moved = np.abs(cheetah.env.get_state(0)[0] - before)
    assert max(moved[at[name]] for name in ("bthigh", "bshin", "bfoot")) < 1e-3 < moved[at["fthigh"]]
    cheetah.press("restart")
    assert not cheetah.broken
    before = cheetah.env.get_state(0)[0]
    play(cheetah, 10)
    assert abs(cheetah.env.get_state(0)[0] - before)[at["bshin"]] > 0.05, "everything is whole again"


def test_a_killed_actuator_gives_no_force(cheetah: Session) -> None:
    def forces() -> np.ndarray:
        model, data, _ = cheetah.env.simulated(0)
        return np.abs(data.actuator_force), [model.actuator(i).name for i in range(model.nu)]

    play(cheetah, 5)
    before, names = forces()
    assert (before > 0.1).all()
    cheetah.press("kill")
    assert cheetah.said == "bthigh: dead"
    cheetah.advance()
    after, _ = forces()
    assert after[names.index("bthigh")] == 0 and np.delete(after, names.index("bthigh")).min() > 0


def test_only_an_environment_made_for_it_can_be_changed_by_hand(cheetah: Session) -> None:
    plain = cheetah.task_set.make_vec(["cheetah_4_front"], 1, threads=1)
    plain.reset(seed=0)
    for change in (lambda: plain.push(0, [1, 0]), lambda: plain.damage(0, 0, 1)):
        with pytest.raises(UserError, match="editable=True"):
            change()
    editable = cheetah.task_set.make_vec(["cheetah_4_front"], 1, threads=1, editable=True)
    with pytest.raises(UserError, match="cannot break in this way"):
        editable.damage(0, 0, 3)


def test_an_invariant_agent_goes_on_with_shuffled_sensors_and_an_ordinary_one_is_lost() -> None:
    returns = []
    for run, shuffled in (("clone-0", True), ("teacher-0", False), ("teacher-0", True)):
        session = session_of(f"swingup/{run}", CALM)
        play(session, 300)
        assert session.total > 150, "it has swung up"
        order = session.env.slots.order[0].clone()
        before = session.total
        while session.steps < 450 and not session.ended:
            if shuffled and session.steps % 50 == 0:
                seen = session.env.slots.order[0].clone()
                session.press("shuffle")
                assert (session.env.slots.order[0] == seen).all(), "what is seen now came in this order"
            session.advance()
        assert (session.env.slots.order[0] != order).any() == shuffled
        returns.append(session.total - before)
        session.close()
    invariant, in_order, lost = returns
    assert invariant > 135 and in_order > 145 and lost < 100


def test_names_follow_the_sensors_and_a_new_episode_begins_in_the_usual_order() -> None:
    session = session_of("swingup/clone-0", CALM)
    usual = session.received().names
    assert usual == session.names == ("x", "x_dot", "cos_theta", "sin_theta", "theta_dot")
    play(session, 5)
    session.press("shuffle")
    session.advance()
    received, state = session.received(), session.env.source.read()[0]
    assert received.names != usual and sorted(received.names) == sorted(usual)
    for name, value in zip(received.names, received.values, strict=True):
        assert value == pytest.approx(float(state[usual.index(name)]), abs=1e-6)
    (bars,) = session.inside()
    assert bars.names == usual and bars.values.sum() == pytest.approx(1, abs=1e-5)
    session.press("next")
    assert session.episode == 1 and session.received().names == usual


def test_time_is_real_time_times_the_speed(cheetah: Session) -> None:
    dt = cheetah.step_duration
    assert dt == pytest.approx(0.05)
    assert sum(cheetah.play(dt / 2) for _ in range(20)) == 10
    for _ in range(len(SPEEDS)):
        cheetah.press("faster")
    assert cheetah.speed == SPEEDS[-1] and sum(cheetah.play(dt / 2) for _ in range(20)) == 80
    cheetah.press("pause")
    assert cheetah.play(1.0) == 0 and cheetah.steps == 90
    cheetah.press("step")
    assert cheetah.steps == 91
    cheetah.press("pause")
    cheetah.press("step")
    assert cheetah.steps == 91 and "Space pauses" in cheetah.said
    for _ in range(len(SPEEDS)):
        cheetah.press("slower")
    assert cheetah.speed == SPEEDS[0]
    assert cheetah.play(100.0) <= 1, "what was missed is not made up for"


def test_the_next_episode_waits_a_moment_after_an_end() -> None:
    session = session_of("swingup/clone-0", {**CALM, "max_episode_steps": 10})
    assert session.step_duration == 0.01
    assert session.play(0.1) == 10 and session.ended
    for _ in range(9):
        assert session.play(0.1) == 0 or session.episode == 0
    assert session.ended
    for _ in range(2):
        session.play(0.1)
    assert session.episode == 1 and not session.ended


def test_bodies_of_other_families_are_played_too_and_keys_that_do_not_fit_say_so() -> None:
    session = session_of("cheetah_smp_split/smp-0", None, ["cheetah_4_front", "centipede_8"])
    session.press("next")
    assert session.body == "centipede_8" and session.step_duration < 0.05
    play(session, 2)
    assert np.isfinite(session.total)
    session.press("shuffle")
    assert session.said == "X is for sensors and patches; this is a task of limbs"
    assert session_of("swingup/clone-0", CALM).text()[1] == ("task", "cartpole_swingup")
    with pytest.raises(UserError, match="did you mean 'shuffle'"):
        session.press("shufle")
    with pytest.raises(UserError, match="unknown body 'centiped_8'; did you mean 'centipede_8'"):
        session_of("cheetah_smp_split/smp-0", None, ["centiped_8"])
    with pytest.raises(UserError, match="MLP has slots for the limbs .* and does not fit ant"):
        session_of("bundled/cheetah-mlp", None, ["ant"])
    with pytest.raises(UserError, match="cartpole_swingup has no body 'ant'"):
        session_of("swingup/clone-0", None, "ant")
