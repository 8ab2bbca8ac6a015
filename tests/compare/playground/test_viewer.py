from base64 import b64decode

import pytest
import traitlets

from nbs_lib.compare.playground.viewer import Viewer, slider


@pytest.fixture
def parts(compared):
    """The prompt's and the pair's choice, and the slider."""
    return slider(compared.folder).children


def shows(compared, viewer, number: int, left: str, right: str) -> bool:
    """Return True if the slider holds exactly these two files, under their names."""
    pictures = [
        b64decode(url.removeprefix("data:image/png;base64,"))
        for url in (viewer.before, viewer.after)
    ]
    files = [
        compared.compare / "pictures" / f"p{number:02}_s3_{name}.png" for name in (left, right)
    ]
    return pictures == [file.read_bytes() for file in files] and (
        viewer.before_label,
        viewer.after_label,
    ) == (left, right)


def test_it_opens_on_the_first_prompt_half_and_half(compared, parts):
    prompt, pair, viewer = parts
    assert shows(compared, viewer, 0, "unguided", "tuned") and viewer.position == 50
    assert (
        viewer.alt.startswith("It's </code>")
        and [label for label, _ in prompt.options][1] == "A boy is watching TV (seed 3)"
    )
    assert [label for label, _ in pair.options] == ["unguided | tuned", "guided | tuned"]


def test_a_chosen_pair_and_a_chosen_prompt_change_the_pictures(compared, parts):
    prompt, pair, viewer = parts
    changed = []
    viewer.observe(lambda change: changed.append(change["name"]), traitlets.All)
    pair.value = ("guided", "tuned")
    assert shows(compared, viewer, 0, "guided", "tuned") and set(changed) == {
        "before",
        "before_label",
    }
    prompt.value = 1
    assert shows(compared, viewer, 1, "guided", "tuned") and viewer.alt == "A boy is watching TV"
    assert {"before", "after", "alt"} <= set(changed)


def test_the_position_is_between_0_and_100_and_stays_with_another_prompt(parts):
    prompt, _, viewer = parts
    for position in (0, 100, 30):
        viewer.position = position
    prompt.value = 1
    assert viewer.position == 30
    for position in (-1, 101):
        with pytest.raises(traitlets.TraitError, match="position"):
            viewer.position = position
    assert viewer.position == 30


def test_without_a_comparison_it_says_what_to_do(run_folder):
    with pytest.raises(FileNotFoundError, match="no comparison; run notebooks/3_compare.ipynb"):
        slider(run_folder)


def test_unknown_modes_are_refused():
    viewer = Viewer()
    for mode in ("side by side", "difference", "flip", "slider"):
        viewer.mode = mode
    with pytest.raises(traitlets.TraitError, match="mode"):
        viewer.mode = "blink"


def test_without_widgets_there_are_plain_pictures_with_their_names():
    viewer = Viewer(
        before="data:a",
        before_label="guided",
        after_label="best",
        after_note="<none> of that name",
        alt='a "cat"',
    )
    plain = viewer.plain()
    assert 'alt="guided: a &quot;cat&quot;"' in plain and plain.count("<img") == 1
    assert "best: &lt;none&gt; of that name" in plain
