"""Colours can be read, and told apart by those who see fewer of them."""

import itertools

import numpy as np
import pytest

from gptjax.explain import palette

# Machado, Oliveira and Fernandes 2009, severity 1, over linear RGB.
SEEN_BY = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


def linear_rgb(colour):
    values = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def luminance(rgb):
    return float(rgb @ [0.2126, 0.7152, 0.0722])


def lab(rgb):
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.clip(to_xyz @ rgb / [0.9505, 1.0, 1.089], 1e-9, None))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("ground", ["light", "dark"])
def test_text_in_a_colour_has_the_contrast_that_wcag_asks_for(ground):
    paper = luminance(linear_rgb(getattr(palette.PAPER, ground)))
    for colour in (palette.INK, palette.FAINT, palette.LINK, palette.OTHER, *palette.RUNS):
        own = luminance(linear_rgb(getattr(colour, ground)))
        contrast = (max(own, paper) + 0.05) / (min(own, paper) + 0.05)
        assert contrast >= 4.5, f"{colour.name}: {contrast:.2f}"


@pytest.mark.parametrize("ground", ["light", "dark"])
@pytest.mark.parametrize("eye", SEEN_BY)
def test_the_first_runs_are_told_apart_without_red_or_green(ground, eye):
    seen = [lab(SEEN_BY[eye] @ linear_rgb(getattr(each, ground))) for each in palette.RUNS[:3]]
    # 2.3 is the least difference that is noticed.
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 10


def test_no_two_runs_look_alike_in_black_and_white():
    looks = [palette.run_style(index) for index in range(30)]
    assert len({(str(look["linestyle"]), look["marker"]) for look in looks}) == 30
    assert len({look["color"] for look in looks[:6]}) == 6
    assert len({each.light for each in palette.ALL}) == len(palette.ALL), "told by its light value"
