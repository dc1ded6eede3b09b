"""What outputs say of actions: torch's own distributions, over what exists."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.distributions import Categorical, Normal

from somite.agents.algorithms.network import Choices, MaskedGaussian, distribution

few = settings(max_examples=30, deadline=None)
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@st.composite
def gaussians(draw: st.DrawFn) -> tuple[torch.Tensor, ...]:
    """Means, actions, a mask of one shape (B, ...), and a scale."""
    shape = draw(st.sampled_from([(3, 4), (2, 3, 2), (1, 1)]))
    numbers = st.floats(-5, 5, width=32)
    mean, actions = (torch.from_numpy(draw(arrays(np.float64, shape, elements=numbers))) for _ in range(2))
    mask = torch.from_numpy(draw(arrays(np.int8, shape, elements=st.integers(0, 1))))
    return mean, actions, mask, torch.tensor(draw(st.floats(-3, 1)), dtype=torch.float64)


@few
@given(gaussians())
def test_a_masked_gaussian_is_torchs_over_what_exists(drawn: tuple) -> None:
    mean, actions, mask, log_std = drawn
    theirs = Normal(mean, log_std.exp())
    for given_mask, exists in ((mask, mask), (None, torch.ones_like(mask))):
        ours = MaskedGaussian(mean, given_mask, log_std)
        wanted = (theirs.log_prob(actions) * exists).flatten(1).sum(1)
        torch.testing.assert_close(ours.log_prob(actions), wanted, **CLOSE)
        torch.testing.assert_close(ours.log_prob(actions.flatten(1)), wanted, **CLOSE)
        entropy = (theirs.entropy().expand_as(mean) * exists).flatten(1).sum(1)
        torch.testing.assert_close(ours.entropy(), entropy, **CLOSE)


def test_a_masked_gaussian_draws_with_its_deviation_where_something_exists() -> None:
    torch.manual_seed(0)
    mean = torch.tensor([[1.0, -2.0, 0.0]]).expand(5000, 3)
    mask = torch.tensor([[1, 1, 0]]).expand(5000, 3)
    for log_std in (-1.0, 0.5):
        drawn = MaskedGaussian(mean, mask, torch.tensor(log_std)).sample()
        noise = drawn - mean
        assert torch.all(noise[:, 2] == 0)
        deviation = np.exp(log_std)
        assert noise[:, :2].std().item() == pytest.approx(deviation, rel=0.04)
        assert abs(noise[:, :2].mean().item()) < 5 * deviation / 100
        assert abs(np.corrcoef(noise[:, :2].T.numpy())[0, 1]) < 5 / 5000**0.5


logits = arrays(np.float64, (4, 3), elements=st.floats(-20, 20))


@few
@given(logits, st.lists(st.integers(0, 2), min_size=4, max_size=4), st.floats(-50, 50))
def test_a_choice_is_torchs_categorical(values: np.ndarray, chosen: list[int], shift: float) -> None:
    ours, theirs = Choices(torch.from_numpy(values), True), Categorical(logits=torch.from_numpy(values))
    wanted = theirs.log_prob(torch.tensor(chosen))
    # As SB3's buffer stores choices, as it passes them on, and as they were drawn.
    for stored in (torch.tensor(chosen)[:, None].float(), torch.tensor(chosen).float(), torch.tensor(chosen)):
        torch.testing.assert_close(ours.log_prob(stored), wanted, **CLOSE)
    torch.testing.assert_close(ours.entropy(), theirs.entropy(), **CLOSE)
    assert ours.log_prob(torch.tensor(chosen)).shape == ours.entropy().shape == (4,)
    # float64 keeps 1e-14 of the shifted logits.
    moved = Choices(torch.from_numpy(values + shift), True).log_prob(torch.tensor(chosen))
    torch.testing.assert_close(moved, wanted, rtol=1e-7, atol=1e-7)


def test_choices_are_drawn_as_often_as_they_are_probable() -> None:
    torch.manual_seed(0)
    probabilities = torch.tensor([0.1, 0.6, 0.3])
    drawn = Choices(probabilities.log().expand(5000, 3), True).sample()
    assert drawn.shape == (5000,) and not drawn.is_floating_point()
    found = np.bincount(drawn, minlength=3) / 5000
    np.testing.assert_allclose(found, probabilities, atol=5 * 0.5 / 5000**0.5)


def test_gradients_raise_the_probability_of_what_was_chosen() -> None:
    values = torch.zeros(1, 3, requires_grad=True)
    Choices(values, True).log_prob(torch.tensor([1])).sum().backward()
    torch.testing.assert_close(values.grad, torch.tensor([[-1 / 3, 2 / 3, -1 / 3]]))
    mean, log_std = torch.zeros(1, 2, requires_grad=True), torch.zeros((), requires_grad=True)
    gaussian = MaskedGaussian(mean, torch.tensor([[1, 0]]), log_std)
    gaussian.log_prob(torch.tensor([[2.0, 2.0]])).sum().backward()
    torch.testing.assert_close(mean.grad, torch.tensor([[2.0, 0.0]]))
    assert log_std.grad.item() == pytest.approx(2.0**2 - 1), "of the one that exists"


def test_choices_are_those_that_torch_draws() -> None:
    """Drawn without torch's check, which would wait for a device."""
    logits = 2 * torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    found = Choices(logits, True).sample()
    torch.manual_seed(1)
    assert torch.equal(found, Categorical(logits=logits).sample())
    assert len(found.unique()) == 4


def test_impossible_choices_are_never_drawn() -> None:
    torch.manual_seed(0)
    counts = (
        Choices(torch.tensor([0.0, -torch.inf, 0.0]).expand(1000, 3), True).sample().bincount(minlength=3)
    )
    assert counts[1] == 0 and 400 < counts[0] < 600


def test_several_decisions_are_torchs_categoricals_side_by_side() -> None:
    logits = torch.randn(7, 6, generator=torch.Generator().manual_seed(0))
    ours = distribution(logits, [3, 1, 2], None, torch.zeros(()))
    theirs = [Categorical(logits=part) for part in logits.split([3, 1, 2], -1)]
    assert isinstance(ours, Choices)
    drawn = ours.sample()
    assert drawn.shape == (7, 3)
    torch.testing.assert_close(
        ours.log_prob(drawn.float()), sum(one.log_prob(drawn[:, k]) for k, one in enumerate(theirs))
    )
    torch.testing.assert_close(ours.entropy(), sum(one.entropy() for one in theirs))
    many = Choices(logits[:1].expand(20_000, 6), [3, 1, 2]).sample()
    joint = torch.bincount(many[:, 0] * 2 + many[:, 2], minlength=6) / len(many)
    wanted = (theirs[0].probs[0][:, None] * theirs[2].probs[0]).flatten()
    torch.testing.assert_close(joint, wanted, atol=0.02, rtol=0)
