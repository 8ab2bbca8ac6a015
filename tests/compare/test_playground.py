import pytest

from nbs_lib.adapter import attach, save_adapter
from nbs_lib.compare.playground import Playground
from nbs_lib.compare.sample import Sampler
from nbs_lib.config import Play
from nbs_lib.models import find_base


@pytest.fixture(scope="module")
def play(tmp_path_factory):
    base, folder = find_base("embedded"), tmp_path_factory.mktemp("adapter")
    unet = base.unet()
    attach(unet, 4, 4.0, seed=0)
    save_adapter(folder, unet, {"base": "embedded", "base_hash": base.hash, "w_train": 2.0})
    return Playground(Sampler(base, folder), Play(prompt="A person holding a cat", seed=1, steps=2))


def test_it_opens_with_a_picture_and_the_trained_guidance(play):
    assert play.guidance.value == 2.0
    assert all('<img src="data:image/png' in html.value and "alt=" in html.value for html in play.pictures.values())
    assert "4 UNet passes" in play.pictures["guided"].value and "2 UNet passes" in play.pictures["tuned"].value


def test_a_changed_seed_changes_both_pictures(play):
    before = [html.value for html in play.pictures.values()], play.slider.before
    play.seed.value = 7
    play.draw.click()
    after = [html.value for html in play.pictures.values()], play.slider.before
    assert before[0][0] != after[0][0] and before[0][1] != after[0][1] and before[1] != after[1]


def test_an_empty_prompt_is_said_and_a_hostile_one_is_text(play):
    play.prompt.value = "   "
    play.draw.click()
    assert "empty" in play.error.value
    play.prompt.value = '"><script>alert(1)</script>'
    play.draw.click()
    assert play.error.value == "" and not any("<script>" in html.value for html in play.pictures.values())


def test_a_prompt_longer_than_the_text_encoder_reads_is_said(play):
    play.prompt.value = "A person holding a cat " * 20
    play.draw.click()
    assert "reads 40 tokens, and the prompt has" in play.error.value
