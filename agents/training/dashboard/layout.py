"""The pages of curves under TensorBoard's tab *Custom Scalars*."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EVERY: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Chart:
    """Curves in one drawing.

    Attributes:
        title: over it. TensorBoard puts charts of several runs together where title and scalars are the
            same, so both are the same for all algorithms.
        scalars: regular expressions, from the beginning of a scalar's name; of a band the three names of
            its middle, its lower and its upper edge.
        where: alternatives; of one of them, words apart by spaces, the run must have all traits.
        band: whether it is one.
    """

    title: str
    scalars: tuple[str, ...]
    where: tuple[str, ...] = EVERY
    band: bool = False

    def fits(self, traits: frozenset[str]) -> bool:
        """Whether a run of these traits logs what is drawn."""
        return any(traits.issuperset(alternative.split()) for alternative in self.where)


PAGES: dict[str, tuple[Chart, ...]] = {
    "Training": (
        Chart("Return", ("rollout/ep_rew_mean$", "validation/mean_reward$")),
        Chart("Length of an episode", ("rollout/ep_len_mean$",)),
        Chart("Returns of a generation", ("cma/best$", "cma/mean$", "cma/median$"), ("cma_es",)),
        Chart(
            "Validation of the mean and of the best candidate",
            ("cma/validation_mean$", "cma/validation_best$"),
            ("cma_es validation",),
        ),
        Chart("Step size of the search", ("cma/sigma$",), ("cma_es",)),
        Chart("Error of the student's actions", ("clone/loss$",), ("clone",)),
        Chart("Share of rows in which the teacher acts", ("clone/teacher_share$",), ("clone",)),
        Chart("Variance of the returns that the critic explains", ("train/explained_variance$",), ("ppo",)),
        Chart("Loss of the critic", ("train/value_loss$",), ("ppo",)),
        Chart("Loss of the policy", ("train/policy_gradient_loss$",), ("ppo",)),
        Chart("Size of an update: KL divergence", ("train/approx_kl$",), ("ppo",)),
        Chart("Size of an update: share of samples clipped", ("train/clip_fraction$",), ("ppo",)),
        Chart("Exploration: deviation of the actions", ("train/std$",), ("ppo continuous",)),
        Chart("Exploration: negative entropy", ("train/entropy_loss$",), ("ppo",)),
        Chart("Learning rate", ("train/learning_rate$",), ("ppo", "clone")),
        Chart(
            "Which sensor is which: loss",
            ("(train|clone)/auxiliary_loss$",),
            ("ppo identify", "clone identify"),
        ),
        Chart("Simulations that diverged", ("rollout/diverged$",)),
    ),
    "Bodies": (
        Chart(
            "All bodies: mean, worst, best",
            ("rollout/body_mean", "rollout/body_worst", "rollout/body_best"),
            ("ppo several", "cma_es several"),
            band=True,
        ),
        Chart("Return of each body", ("bodies/.+",), ("ppo", "cma_es")),
    ),
    "Zero-shot": (
        Chart(
            "Mean of the conditions, and undisturbed",
            ("zero_shot/mean$", "zero_shot/undisturbed$"),
            ("zero_shot",),
        ),
        Chart("Each condition", ("zero_shot/(?!mean$).+",), ("zero_shot",)),
    ),
    "Speed": (
        Chart("Environment steps per second", ("time/fps$",)),
        Chart("Share of the time", ("time/.+_share$",)),
    ),
}
"""Every chart that there is, by page. ``docs/scalars.md`` tells what the scalars mean."""


def layout(traits: frozenset[str]) -> dict[str, dict[str, list[Any]]]:
    """Pages for a run, as `SummaryWriter.add_custom_scalars` takes them.

    Args:
        traits: of the run, see `traits_of`.

    Returns:
        By page and title the kind of chart and its scalars; only what the run logs.
    """
    pages: dict[str, dict[str, list[Any]]] = {}
    for page, charts in PAGES.items():
        fitting = [chart for chart in charts if chart.fits(traits)]
        if fitting:
            pages[page] = {
                chart.title: ["Margin" if chart.band else "Multiline", list(chart.scalars)]
                for chart in fitting
            }
    return pages


def traits_of(algorithm: str, kind: str, has: Mapping[str, bool]) -> frozenset[str]:
    """Words that tell which scalars a run logs.

    Args:
        algorithm: ``ppo``, ``cma_es`` or ``clone``.
        kind: of the tokens: ``limbs``, ``sensors`` or ``patches``.
        has: ``continuous`` actions, a loss of ``identify``, ``several`` bodies, ``validation``, a
            ``zero_shot`` suite.
    """
    return frozenset({algorithm, kind, *(name for name, true in has.items() if true)})
