"""Icons of npm packages, the pictures made of them, and textures."""

import json
import shutil
from random import Random

import numpy as np
import pytest

from nbs_lib.picturebook.training.pictures.icons import (
    PACKAGES,
    TRAINED_STYLES,
    IconPackages,
    MissingPackageError,
)
from nbs_lib.picturebook.training.pictures.mixture import draw_mixture, on_white, place_icon
from nbs_lib.picturebook.training.pictures.textures import draw_texture
from nbs_lib.picturebook.training.tokenizer import everyday_texts


def test_icons_are_drawn_with_their_names_and_keywords(packages):
    icons = packages.icons(("noto",))
    assert [(icon.name, icon.keywords) for icon in icons] == [
        ("koala", ("animal", "bear")),
        ("sun", ("bright",)),
        ("teapot", ("drink", "pot", "tea")),
    ]
    koala = icons[0].picture
    assert koala.shape == (128, 128, 4) and koala.dtype == np.uint8
    assert koala[20, 20].tolist() == [255, 0, 0, 255]
    assert koala[100, 100, 3] == 0, "what is not drawn is clear"
    assert len(packages.icons(TRAINED_STYLES)) == 9
    assert [icon.name for icon in packages.icons(("noto",), every=2)] == ["koala", "teapot"]


@pytest.mark.parametrize("installed", [None, "0.0.1"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    packages, tmp_path, installed
):
    packages.check()
    copy = IconPackages(tmp_path / "icons")
    shutil.copytree(packages.folder, copy.folder)
    package = copy.folder / "node_modules/@iconify-json/noto/package.json"
    package.write_text(json.dumps({"version": installed})) if installed else package.unlink()
    with pytest.raises(MissingPackageError) as error:
        copy.check()
    sentence = str(error.value)
    assert f"@iconify-json/noto {PACKAGES['@iconify-json/noto']}" in sentence
    assert f"npm install --ignore-scripts --prefix {copy.folder} " in sentence
    assert all(f"{name}@{version}" in sentence for name, version in PACKAGES.items())
    assert f"installed is {installed or 'none'}" in sentence


def test_an_icon_on_white_covers_what_it_draws_and_no_more(packages):
    koala = packages.icons(("noto",))[0]
    picture = on_white(koala)
    assert picture[:60, :60].reshape(-1, 3).max(0).tolist() == [255, 0, 0]
    assert (picture[70:] == 255).all() and (picture[:, 70:] == 255).all()


def test_placed_icons_differ_in_place_and_background_and_keep_their_colour(packages):
    teapot = packages.icons(("noto",))[2]
    rng = Random(0)
    pictures = [np.asarray(place_icon(teapot, rng)) for _ in range(12)]
    assert all(picture.shape == (128, 128, 3) for picture in pictures)
    blue = [(picture == (0, 0, 255)).all(2) for picture in pictures]
    assert all(mask.sum() > 500 for mask in blue), "half the size is a quarter of 64 x 64"
    assert len({tuple(np.argwhere(mask)[0]) for mask in blue}) > 6
    assert len({tuple(picture[0, 0]) for picture in pictures}) > 3


def test_the_mixture_is_scenes_then_icons_then_textures(packages):
    icons = packages.icons(TRAINED_STYLES)
    pictures = draw_mixture(icons, 24, seed=3)
    assert pictures.shape == (24, 128, 128, 3) and pictures.dtype == np.uint8
    assert np.array_equal(pictures, draw_mixture(icons, 24, seed=3))
    assert not np.array_equal(pictures, draw_mixture(icons, 24, seed=4))
    assert len({picture.tobytes() for picture in pictures}) == 24


def test_textures_have_the_size_of_a_picture_and_differ():
    rng = Random(1)
    textures = [draw_texture(rng) for _ in range(30)]
    assert {texture.size for texture in textures} == {(128, 128)}
    assert len({texture.tobytes() for texture in textures}) == 30


def test_the_vocabulary_is_made_of_captions_names_keywords_and_words(packages):
    texts = list(everyday_texts(packages, captions=50))
    assert {"koala", "bear", "kitchen"} <= set(texts)
    assert texts.count("koala") > texts.count("bear") > 0
    assert sum(" " in text for text in texts) == 50
