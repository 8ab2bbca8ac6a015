"""The app of `onepass space` in a browser: it draws what the run's own sampler draws."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import yaml
from environments import new_environment
from PIL import Image
from playwright.sync_api import Page
from shots import screenshot

from nbs_lib.compare.sampling.sampler import load_sampler
from nbs_lib.export import ExportError
from nbs_lib.export.space import GRADIO, app_settings, base_of_space, space_readme, write_space
from nbs_lib.files import ROOT
from nbs_lib.run.run import Run

pytestmark = pytest.mark.browser

STEPS, SEED = 2, 7
PROMPT = "A boy is watching TV"


@pytest.fixture(scope="module")
def run(compared, tmp_path_factory) -> Run:
    """Return a copy of a compared run, to write into."""
    folder = tmp_path_factory.mktemp("my rüns") / "outputs" / "an adapter"
    return Run(shutil.copytree(compared.folder, folder, symlinks=True))


@pytest.fixture(scope="module")
def space(run, tmp_path_factory) -> Path:
    """Return the app's folder, away from the run and the library."""
    return shutil.copytree(write_space(run.folder), tmp_path_factory.mktemp("a space") / "app")


@pytest.fixture(scope="module")
def python(tmp_path_factory, skip_or_fail) -> Path:
    """Return the Python of an environment with Gradio, and this one's other packages.

    Gradio needs an older Pillow than Onepass does: so it is no extra of Onepass.
    """
    folder = tmp_path_factory.mktemp("an environment")
    python = new_environment(folder / "venv")
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    constraints = [line for line in pins if not line.startswith("pillow==")]
    (folder / "constraints.txt").write_text("\n".join(constraints))
    command = [sys.executable, "-m", "pip", "--python", python, "install", "-q"]
    command += ["-c", folder / "constraints.txt", f"gradio=={GRADIO}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        skip_or_fail(f"Gradio cannot be installed here: {done.stderr.strip()[-300:]}")
    return python


@pytest.fixture(scope="module")
def address(space, python) -> Iterator[str]:
    """Yield the address of the running app."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = os.environ | {"GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1"}
    with (space / "log").open("wb") as log:
        process = subprocess.Popen([python, "app.py"], cwd=space, env=variables, stderr=log)
    try:
        end = time.monotonic() + 120
        while True:
            try:
                urlopen(f"http://127.0.0.1:{port}/config", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (space / "log").read_text()
                assert time.monotonic() < end
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def page(chromium, address) -> Iterator[Page]:
    page = chromium.new_page(viewport={"width": 1000, "height": 900})
    page.goto(address)
    page.get_by_role("button", name="Draw").wait_for()
    yield page
    page.close()


def set_number(page: Page, label: str, value: float):
    # a slider has a field and a range
    field = page.locator(f"input[type=number][aria-label$='{label}']")
    field.fill(str(value))
    field.press("Enter")


def picture(page: Page, number: int) -> np.ndarray:
    source = page.locator(".image-frame img").nth(number)
    source.wait_for(timeout=60_000)
    data = page.request.get(source.get_attribute("src")).body()
    return np.asarray(Image.open(BytesIO(data)).convert("RGB"))


def test_both_pictures_are_those_of_the_run(page, run):
    page.get_by_label("Prompt").fill(PROMPT)
    set_number(page, "Steps", STEPS)
    set_number(page, "Seed", SEED)
    page.get_by_role("button", name="Draw").click()
    sampler = load_sampler(run)
    for number, (name, passes) in enumerate((("guided", 2 * STEPS), ("tuned", STEPS))):
        settings = sampler.resolver.resolve(name, STEPS)
        [expected] = sampler.sample(settings, [PROMPT], [SEED]).images
        drawn = picture(page, number)
        assert np.abs(drawn.astype(int) - expected.astype(int)).max() <= 1, name
        cost = page.get_by_label(("Base costs", "Tuned costs")[number]).input_value()
        assert cost.startswith(f"{passes} denoiser passes, ")
    screenshot(page, "space")


def test_an_empty_prompt_is_answered_in_words(page):
    page.get_by_label("Prompt").fill(" ")
    page.get_by_role("button", name="Draw").click()
    page.get_by_text("Type a prompt first.").wait_for(timeout=20_000)


def test_the_folder_is_whole_without_onepass(space):
    names = {path.name for path in space.iterdir()}
    assert {"app.py", "settings.json", "requirements.txt", "README.md", "adapter", "base"} <= names
    assert "nbs_lib" not in (space / "app.py").read_text()
    front = yaml.safe_load((space / "README.md").read_text().split("---\n")[1])
    assert front["sdk"] == "gradio" and front["sdk_version"] == GRADIO
    assert front["title"] == "an adapter" and "models" not in front
    assert "torch==2.13.0\n" in (space / "requirements.txt").read_text()


def test_a_base_of_the_hub_is_named_and_a_local_one_refused():
    facts = {"name": "x", "base": "a/b", "base_origin": f"a/b@{'1' * 40}", "w_train": 4.0}
    facts |= {"compared": None, "objective": "guidance", "transformer": False}
    facts |= {"dial": [[2.0, 0.5], [4.0, 1.0]]}
    settings = app_settings(facts)
    assert (settings["base"], settings["revision"]) == ("a/b", "1" * 40)
    assert settings["dial"] == [[2.0, 0.5], [4.0, 1.0]] and settings["w"] == 4
    assert yaml.safe_load(space_readme(settings).split("---\n")[1])["models"] == ["a/b"]
    with pytest.raises(ExportError, match="a local folder, which a Space does not have"):
        base_of_space(facts | {"base": "/models/own", "base_origin": "/models/own"})
