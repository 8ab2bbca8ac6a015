import gc
import shutil
import time
import weakref
from contextlib import suppress
from threading import current_thread, main_thread

import nbformat
import papermill
import pytest

from nbs_lib.compare.playground.app import Playground, playground
from nbs_lib.compare.playground.options import Dial, contender_options, own_dial
from nbs_lib.compare.playground.sampling_thread import SamplingThread, StoppedError
from nbs_lib.compare.sampling.sampler import Sampler
from nbs_lib.config import Play
from nbs_lib.files import ROOT, read_jsonl
from nbs_lib.pipeline.recipes import configs
from nbs_lib.run.run import Run, RunError


@pytest.fixture(scope="module")
def neighbours(adapter, add_run_on_another_base, tmp_path_factory):
    """A trained run; beside it another, and four whose adapters cannot be put on its base."""
    outputs = tmp_path_factory.mktemp("my rüns") / "outputs"
    run = Run(outputs / "tiny")
    for name in ("tiny", "second"):
        Run(outputs / name).update(
            stages={"train": {"status": "done", "parameters": {"steps": 50, "run": "outputs/tiny"}}}
        )
        shutil.copytree(adapter, Run(outputs / name).adapter)
    Run(outputs / "training").update(stages={"train": {"status": "running"}})
    Run(outputs / "prepared").update(stages={"prepare": {"status": "done"}})
    Run(outputs / "whole").update(
        stages={"train": {"status": "done", "parameters": {"method": "full"}}}
    )
    add_run_on_another_base(outputs)
    (outputs / "cache").mkdir()
    return run


@pytest.fixture(scope="module")
def sampler(base, adapter):
    return Sampler(base, adapter)


@pytest.fixture
def run(neighbours):
    """The run with an empty gallery, so that the page draws its first pictures."""
    shutil.rmtree(neighbours.folder / "gallery", ignore_errors=True)
    return neighbours


@pytest.fixture
def play(sampler, run):
    return Playground(sampler, run, Play(prompts=["A person holding a cat"], seeds=[1], steps=2))


def test_a_second_page_lets_the_first_one_s_model_go(trained):
    config = Play(run=str(trained.folder), prompts=["a cat"], steps=1)
    first = playground(config)
    model = weakref.ref(first.sampler.pipelines.pipe.unet)
    del first
    second = playground(config)
    gc.collect()
    assert model() is None and second.gallery.rows
    second.close()
    assert second.panel.comm is None


def draw(play: Playground, **fields) -> dict:
    """Draw with these fields; the newest row of the gallery."""
    for name, value in fields.items():
        setattr(play.panel, name, value)
    play.panel.draw_requests += 1
    play.thread.wait()
    return play.gallery.rows[0]


def test_it_opens_with_pictures_and_the_trained_guidance(play):
    assert play.panel.scales["guided"] == 2.5
    assert not play.panel.busy and play.panel.message == "" and play.panel.hints == ""
    assert (play.viewer.before_label, play.viewer.after_label) == ("guided", "tuned")
    assert "4 denoiser passes" in play.viewer.before_note
    assert "2 denoiser passes" in play.viewer.after_note
    plain = play.plain()
    assert (
        plain.count('<img src="data:image/png') == 2
        and 'alt="tuned: A person holding a cat (seed 1)"' in plain
    )


def test_every_prompt_and_seed_is_drawn_by_every_contender(play):
    first = draw(play, prompts="a cat\n\n a dog ", seeds="1, 2", chosen=["tuned", "unguided"])
    rows = play.gallery.rows[:4]
    assert [(row["prompt"], row["seed"]) for row in rows] == [
        ("a cat", 1),
        ("a cat", 2),
        ("a dog", 1),
        ("a dog", 2),
    ]
    assert [sample["name"] for sample in first["samples"]] == ["tuned", "unguided"]
    assert len({sample["url"] for row in rows for sample in row["samples"]}) == 8
    assert play.panel.history[:3] == ["a cat", "a dog", "A person holding a cat"]
    assert play.viewer.alt == "a cat (seed 1)"


def test_scales_belong_to_their_contenders(play):
    other = next(
        option["name"] for option in play.panel.context["options"] if option["label"] == "second"
    )
    row = draw(
        play,
        scales={"guided": 4.0, "tuned": 0.5, other: 0.0},
        chosen=["guided", "tuned", other, "unguided"],
    )
    urls = {sample["name"]: sample["url"] for sample in row["samples"]}
    assert list(urls) == ["guided at 4", "tuned at 0.5", "unguided", f"{other} at 0"]
    assert urls[f"{other} at 0"] == urls["unguided"], "an adapter of no strength is the base"
    assert len(set(urls.values())) == 3
    dial = Dial("λ", -1, 3, 0.05, 1.0)
    names = (dial.contender("tuned", 1.0), dial.contender("tuned", -0.25))
    assert names == ("tuned", "tuned at -0.25")
    # of an adapter whose dial was measured
    measured = own_dial({"w_train": 4.0, "dial": [[2.0, 0.5], [4.0, 1.25]]})
    assert (measured.high, measured.usual) == (4.0, 3.33)
    names = (measured.contender("tuned", 3.33), measured.contender("tuned", 2.5))
    assert names == ("tuned", "tuned for 2.5")


def test_the_viewer_shows_the_last_two_clicked_pictures(play):
    number = draw(play, chosen=["unguided", "guided", "tuned"])["number"]
    sides = lambda: (play.viewer.before_label, play.viewer.after_label)  # noqa: E731
    assert sides() == ("guided", "tuned")
    play.look(number, "unguided")
    assert sides() == ("tuned", "unguided")
    play.look(number, "unguided")
    assert sides() == ("guided", "unguided")
    play.look(number - 1, "guided")
    assert sides() == ("tuned", "guided"), "another row begins anew"


def test_seeds_change_unless_locked(play):
    assert draw(play)["seed"] == 1
    assert draw(play, locked=False)["seed"] != 1
    play.panel.seeds, before = "4, 5, 6", play.panel.seeds
    play.shuffle()
    assert len(play.panel.seeds.split(", ")) == 3 and play.panel.seeds not in ("4, 5, 6", before)


def test_another_scheduler_draws_another_picture(play):
    before = play.viewer.before
    draw(play, scheduler="EulerDiscreteScheduler")
    assert play.viewer.before != before and play.panel.message == ""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompts": " \n "}, "The prompt is empty"),
        ({"scales": {"guided": 0.0}}, "w of guided: given 0; allowed is a number from 1 to 20"),
        ({"scales": {"guided": 20.5}}, "w of guided: given 20.5; allowed is a number from 1 to 20"),
        ({"scales": {"tuned": 3.5}}, "λ of tuned: given 3.5; allowed is a number from -1 to 3"),
        ({"steps": 2.5}, "steps: given 2.5; allowed is a whole number from 1 to 100"),
        ({"steps": 0}, "steps: given 0; allowed is a whole number from 1 to 100"),
        ({"steps": None}, "steps is empty; write a whole number from 1 to 100"),
        ({"scales": {"guided": None}}, "w of guided is empty; write a number from 1 to 20"),
        ({"scales": {"tuned": None}}, "λ of tuned is empty; write a number from -1 to 3"),
        ({"width": 100.5}, "width: given 100.5; allowed is a multiple of "),
        ({"height": 8200}, "height: given 8200; allowed is a multiple of "),
        ({"height": None}, "height is empty; write a multiple of "),
        ({"seeds": "1, x"}, "seeds: given '1, x'; allowed are whole numbers"),
        ({"seeds": "-1"}, "seeds: given [-1]"),
        ({"seeds": ""}, "seeds: given []"),
        ({"chosen": []}, "No contender is chosen"),
    ],
)
def test_wrong_fields_give_an_error_and_no_pictures(play, fields, message):
    rows = play.gallery.rows
    draw(play, **fields)
    assert message in play.panel.message and play.gallery.rows == rows and not play.panel.busy
    plain = play.plain()
    assert message.partition("'")[0] in plain and plain.count("<img") == 2, "the pictures stay"


def test_a_refused_contender_shows_its_error_beside_the_others_pictures(play, run, base):
    elsewhere = f"{run.folder.parent}/elsewhere"
    row = draw(play, chosen=["tuned"], other_contenders=f"best\n{elsewhere} at 0.5")
    tuned, best, other = row["samples"]
    assert tuned["url"] and not best["url"] and "given 'best'; allowed is" in best["note"]
    assert (
        not other["url"] and "0123456789abcdef" in other["note"] and base.hash[:16] in other["note"]
    )
    assert "best: contender: given 'best'" in play.panel.message, "beside the button too"
    play.look(row["number"], "best")
    assert play.viewer.before and not play.viewer.after and "given 'best'" in play.viewer.after_note
    rows = play.gallery.rows
    draw(play, chosen=[])
    assert "given 'best'" in play.panel.message and play.gallery.rows == rows


def test_a_long_prompt_is_sampled_with_a_note_about_its_end(play, capfd):
    row = draw(play, prompts="cat " * 1000)
    assert all(sample["url"] for sample in row["samples"])
    assert (
        play.panel.hints
        == "The text encoder reads 40 tokens, and the prompt has 1002: its end is not drawn."
    )
    assert "truncated" not in capfd.readouterr().err
    draw(play, prompts='"><script>alert(1)</script>')
    assert "never learned: script, alert." in play.panel.hints
    assert "<script>" not in play.plain()


def test_stop_ends_a_long_sampling_and_the_next_one_works(play):
    play.panel.steps, play.panel.prompts, play.panel.chosen = (
        100,
        "\n".join(["a cat"] * 100),
        ["guided"],
    )
    rows, begun = play.gallery.rows, time.monotonic()
    play.panel.draw_requests += 1
    play.panel.draw_requests += 1  # which a busy page does not take
    assert play.panel.busy
    while not play.panel.step:
        with suppress(TimeoutError):
            play.thread.wait(0.1)
    play.thread.stop()
    play.thread.wait()
    assert time.monotonic() - begun < 30, "minutes, to its end"
    assert (
        play.panel.message == "Stopped; nothing was finished."
        and play.gallery.rows == rows
        and not play.panel.busy
    )
    assert 0 < play.panel.step < play.panel.n_steps == 500
    assert all(
        sample["url"]
        for sample in draw(play, steps=2, prompts="a cat", chosen=["guided", "tuned"])["samples"]
    )


def test_a_negative_prompt_changes_guided_and_not_the_single_pass(play):
    plain = draw(play, chosen=["guided", "tuned"])["samples"]
    named = draw(play, negative="A beach with a lot of waves on it")["samples"]
    assert named[0]["url"] != plain[0]["url"] and named[1]["url"] == plain[1]["url"]
    [guided, tuned] = play.gallery.by_number[max(play.gallery.by_number)].pictures
    assert guided.metadata["negative"] == "A beach with a lot of waves on it"
    assert tuned.metadata["negative"] == "", "it does not depend on it"


def test_width_and_height_are_those_of_the_picture_and_a_hint_names_the_training_s(play):
    side, low = play.panel.sizes.trained, play.panel.sizes.low
    draw(play, height=low)
    [guided, tuned] = play.gallery.by_number[max(play.gallery.by_number)].pictures
    assert guided.image.shape == tuned.image.shape == (low, side, 3)
    assert guided.metadata["size"] == [side, low]
    hint = f"Trained at {side} × {side}: at {side} × {low} pictures are often worse"
    assert play.panel.hints.startswith(hint)
    draw(play, height=side)
    assert play.panel.hints == ""
    [guided, _] = play.gallery.by_number[max(play.gallery.by_number)].pictures
    assert guided.metadata["size"] is None, "the usual size, as in the comparison"


def test_words_that_the_base_never_learned_are_named_while_they_are_typed(play):
    play.panel.prompts = "an astronaut riding a horse\na person holding a cat"
    assert play.panel.hints.startswith("This base never learned: astronaut, riding, horse. ")
    play.panel.prompts = "A person holding a cat"
    assert play.panel.hints == ""


def test_previews_are_shown_while_pictures_are_sampled(play, monkeypatch):
    shown = []
    play.viewer.observe(lambda change: shown.append(change["new"]), "preview")
    monkeypatch.setattr("nbs_lib.compare.playground.jobs.PREVIEW_SECONDS", 0)
    draw(play, steps=3)
    assert len([url for url in shown if url]) == 6, "at each step of both contenders"
    assert play.viewer.preview == "", "the pictures take its place"


def test_a_row_s_recipe_is_one_that_onepass_takes(play, run, tmp_path):
    row = draw(
        play,
        prompts="a cat: one\na 'dog'",
        seeds="1, 2",
        scales={"tuned": 0.5},
        scheduler="LCMScheduler",
    )
    path = tmp_path / "copied.yaml"
    path.write_text(row["recipe"], encoding="utf-8")
    parameters = configs(str(path), run.folder)
    assert parameters["compare"].prompts == ["a cat: one", "a 'dog'"] and parameters[
        "compare"
    ].seeds == [
        1,
        2,
    ]
    assert parameters["compare"].contenders == ["unguided", "guided", "tuned", "tuned at 0.5"]
    assert parameters["compare"].scheduler == "LCMScheduler"
    assert parameters["compare"].steps == 2 and parameters["train"].steps == 50, (
        "so that the run's own training is kept"
    )


def test_blind_votes_are_saved_and_the_page_shows_no_name(play, run):
    play.config = Play(prompts=["a cat"], steps=2, pairs=3)
    play.start_blind()
    play.thread.wait()
    for choice in (1, 2, 0):
        assert (
            set(play.blind.pair) == {"number", "prompt", "left", "right"}
            and play.blind.results == []
        )
        assert "guided" not in play.blind.message and "tuned" not in play.blind.message
        number = play.blind.pair["number"]
        play.blind.vote(choice, number)
        play.blind.vote(choice, number)  # a second view of the page, which still showed it
    play.blind.vote(1, 4)  # there is no fourth pair
    votes = read_jsonl(run.folder / "votes.jsonl")
    assert [vote["choice"] for vote in votes] == [1, 2, 0] and play.blind.pair == {}
    assert all(
        {vote["left"], vote["right"]} == {"guided", "tuned"} and vote["steps"] == 2
        for vote in votes
    )
    assert len(play.blind.results) == 1 and "neither: 1" in play.blind.results[0]


def test_a_blind_test_can_end_early(play):
    play.config = Play(prompts=["a cat"], steps=2, pairs=3)
    play.panel.steps = 3  # other pictures than those of other votes
    play.start_blind()
    play.blind.end()
    play.thread.wait()
    assert (
        play.blind.pair == {}
        and not play.blind.busy
        and play.blind.message == "Stopped; there are no votes."
    )
    play.start_blind()
    play.thread.wait()
    play.blind.vote(0, 1)
    play.blind.end()
    assert play.blind.pair == {} and play.blind.message.startswith(
        "Stopped. All 1 vote of this run"
    )
    assert play.blind.n_pairs == 1 and "1 for neither" in play.blind.results[0]


def test_a_blind_test_of_one_contender_is_refused(play):
    play.panel.chosen = ["tuned"]
    play.start_blind()
    assert "needs two or more" in play.blind.message and not play.blind.busy


def test_neighbouring_runs_are_offered_or_refused_with_a_reason(run, sampler, base):
    options = contender_options(run, sampler)
    reasons = {option.label: option.reason for option in options}
    assert list(reasons) == [
        "guided",
        "tuned",
        "unguided",
        "elsewhere",
        "prepared",
        "second",
        "training",
        "whole",
    ]
    assert reasons["second"] == "" and reasons["training"] == "its training has not ended"
    assert (
        "no adapter" in reasons["prepared"] and "all its weights were trained" in reasons["whole"]
    )
    assert (
        "another base, another-base (01234567)" in reasons["elsewhere"]
        and f"embedded ({base.hash:.8})" in reasons["elsewhere"]
    )


def test_a_run_that_cannot_be_opened_says_what_to_do(run):
    with pytest.raises(RunError, match="its training has not ended; wait for it"):
        playground(Play(run=str(run.folder.parent / "training")))
    with pytest.raises(FileNotFoundError, match="there is no run .*nothing; check its name"):
        playground(Play(run=str(run.folder.parent / "nothing")))
    with pytest.raises(FileNotFoundError, match="has no cache; run notebooks/1_prepare"):
        playground(Play(run=str(run.folder.parent / "prepared")))


def test_the_sampling_thread_does_one_job_and_posts_to_the_page_s_thread():
    thread, callers = SamplingThread(), []

    def job():
        thread.post(lambda: callers.append(current_thread()))
        while True:
            thread.check()
            time.sleep(0.01)

    def quiet():
        with pytest.raises(StoppedError):
            job()

    assert thread.start(quiet) and thread.busy and not thread.start(quiet)
    with pytest.raises(TimeoutError, match="not drawn after 0.1 s"):
        thread.wait(0.1)
    thread.stop()
    thread.wait(10)
    assert callers == [main_thread()] and not thread.busy


def test_the_notebook_run_headlessly_has_plain_pictures(compared, tmp_path):
    run = tmp_path / "outputs" / "tiny"
    shutil.copytree(compared.folder, run, symlinks=True)
    notebook, out = ROOT / "notebooks" / "playground.ipynb", tmp_path / "out.ipynb"
    parameters = {"run": str(run), "prompts": ["a cat"], "steps": 2}
    papermill.execute_notebook(
        notebook, out, parameters, kernel_name="python3", progress_bar=False, execution_timeout=300
    )
    cells = [cell for cell in nbformat.read(out, 4).cells if cell.cell_type == "code"]
    html = "".join(output.data.get("text/html", "") for output in cells[-1].outputs)
    assert html.count('<img src="data:image/png') == 2 and 'alt="tuned: a cat (seed 0)"' in html
    assert not any(output.output_type == "stream" for cell in cells for output in cell.outputs)
