"""Pictures as backgrounds: any file is one, or is refused in one sentence."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from somite.envs.car_racing.scenery import SIZE, read_picture
from somite.envs.errors import UserError

from .mutations import from_random, mutated_bytes


def encoded():
    """Pictures of each kind that is read, and of kinds that are not."""
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 256, (24, 32, 3), np.uint8)
    colors = cv2.resize(colors, (64, 48), interpolation=cv2.INTER_LINEAR)
    pictures = [
        (".png", colors),
        (".png", colors[..., 0]),
        (".png", colors.astype(np.uint16) * 257),
        (".png", np.dstack([colors, colors[..., :1]])),
        (".png", colors[:1, :1]),
        (".jpg", colors),
        (".jpg", colors[..., 0]),
        (".bmp", colors),
        (".webp", colors),
        (".tiff", colors),
        (".ppm", colors),
    ]
    return [cv2.imencode(kind, picture)[1].tobytes() for kind, picture in pictures]


PICTURES = encoded()


def hostile(rng):
    return mutated_bytes(rng.choice(PICTURES), rng)


def check(watch, data):
    file = watch.folder / "picture"
    file.write_bytes(data)

    def load():
        read_picture.cache_clear()
        picture = read_picture(str(file))
        assert picture.shape == (SIZE, SIZE, 3) and picture.dtype == np.uint8

    watch(load, UserError, file)


@pytest.mark.parametrize(
    "count", [400, pytest.param(20_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_any_file_is_a_picture_or_is_refused(watch, count):
    @settings(settings.get_profile("fuzz"), max_examples=count)
    @given(st.one_of(from_random(hostile), st.binary(max_size=200)))
    def each(data):
        check(watch, data)

    each()
    assert 0 < watch.refused < watch.inputs, "some are pictures still"
