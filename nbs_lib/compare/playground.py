"""The playground: type a prompt, see base and tuned side by side."""

from html import escape
from pathlib import Path

import ipywidgets

from ..run import Run
from .report import data_url
from .sample import Sampler, load_sampler
from .viewer import Slider

SIDE = 256  # pixels of a picture on the page


class Playground:
    """Controls, two pictures and a slider over one sampler. `widget` is what a notebook shows.

    Values are changed and `draw` clicked from Python as on the page; `error` holds the words that stand where the
    pictures would be.
    """

    def __init__(self, sampler: Sampler, prompt: str, seed: int, steps: int, guidance: float, adapter_scale: float):
        """guidance: 0 is the scale that the adapter was trained for."""
        self.sampler = sampler
        wide = {"style": {"description_width": "110px"}, "layout": {"width": "540px"}}
        self.prompt = ipywidgets.Text(prompt, description="Prompt", **wide)
        self.seed = ipywidgets.BoundedIntText(seed, min=0, max=2**31 - 1, description="Seed", **wide)
        self.steps = ipywidgets.IntSlider(steps, min=1, max=100, description="Steps", continuous_update=False, **wide)
        w = guidance or sampler.w_train
        self.guidance = ipywidgets.FloatSlider(w, min=1, max=20, step=0.25, description="Guidance w", **wide)
        self.adapter_scale = ipywidgets.FloatSlider(
            adapter_scale, min=-1, max=3, step=0.05, description="Adapter scale", **wide
        )
        self.draw = ipywidgets.Button(description="Draw", button_style="primary", tooltip="Sample base and tuned")
        self.error = ipywidgets.HTML()
        self.pictures = {name: ipywidgets.HTML() for name in ("guided", "tuned")}
        self.slider = Slider(before_label="guided", after_label="tuned", layout={"width": f"{SIDE}px"})
        self.draw.on_click(lambda _: self.sample())
        controls = [self.prompt, self.seed, self.steps, self.guidance, self.adapter_scale, self.draw, self.error]
        self.widget = ipywidgets.VBox([*controls, ipywidgets.HBox([*self.pictures.values(), self.slider])])
        self.sample()

    def sample(self):
        """Draw both pictures from the same noise with what the controls say."""
        prompt = self.prompt.value.strip()
        if not prompt:
            self.error.value = "The prompt is empty; write what the picture is to show."
            return
        self.error.value, self.draw.disabled = "Sampling…", True
        what, own = ([prompt], [self.seed.value], self.steps.value), {"guided": {"guidance": self.guidance.value}}
        own["tuned"] = {"adapter_scale": self.adapter_scale.value}
        try:
            drawn = {name: self.sampler.sample(name, *what, **own[name]) for name in self.pictures}
        except Exception as failure:  # said on the page: a callback's traceback is seen by nobody
            self.error.value = escape(f"Sampling failed: {failure}")
            return
        finally:
            self.draw.disabled = False
        urls = {name: data_url(samples.images[0]) for name, samples in drawn.items()}
        for name, samples in drawn.items():
            self.pictures[name].value = _figure(name, prompt, urls[name], samples.nfe, samples.seconds)
        with self.slider.hold_sync():
            self.slider.before, self.slider.after, self.slider.alt = urls["guided"], urls["tuned"], prompt
        self.error.value = ""


def _figure(name: str, prompt: str, url: str, nfe: float, seconds: float) -> str:
    alt = escape(f"{name}: {prompt}", quote=True)
    image = f'<img src="{url}" alt="{alt}" width="{SIDE}" height="{SIDE}" style="image-rendering: pixelated">'
    cost = f"<figcaption>{name}: {nfe:g} UNet passes, {seconds:.2f} s</figcaption>"
    return f'<figure style="margin: 0 12px 0 0">{image}{cost}</figure>'


def playground(
    folder: str | Path, prompt: str, seed: int = 0, steps: int = 25, guidance: float = 0.0, adapter_scale: float = 1.0
) -> Playground:
    """A playground over a run's base and adapter. Errors: FileNotFoundError where the run has no adapter yet."""
    return Playground(load_sampler(Run(folder)), prompt, seed, steps, guidance, adapter_scale)
