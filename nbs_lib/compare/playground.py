"""The playground: type a prompt, see base and tuned side by side."""

from html import escape

import ipywidgets

from ..config import Play
from ..run import Run
from .report import data_url
from .sample import Sampler, Samples, load_sampler
from .viewer import Slider

SIDE = 256  # pixels of a picture on the page


class Playground:
    """Controls, two pictures and a slider over one sampler. `widget` is what a notebook shows.

    Values are changed and `draw` clicked from Python as on the page; `error` holds the words that stand where the
    pictures would be.
    """

    def __init__(self, sampler: Sampler, config: Play):
        self.sampler = sampler
        wide = {"style": {"description_width": "110px"}, "layout": {"width": "540px", "max_width": "100%"}}
        self.prompt = ipywidgets.Text(config.prompt, description="Prompt", **wide)
        self.seed = ipywidgets.BoundedIntText(config.seed, min=0, max=2**31 - 1, description="Seed", **wide)
        self.steps = ipywidgets.IntSlider(config.steps, min=1, max=100, description="Steps", continuous_update=False, **wide)
        w = config.guidance or sampler.w_train
        self.guidance = ipywidgets.FloatSlider(w, min=1, max=20, step=0.25, description="Guidance w", **wide)
        self.adapter_scale = ipywidgets.FloatSlider(
            config.adapter_scale, min=-1, max=3, step=0.05, description="Adapter scale", **wide
        )
        self.draw = ipywidgets.Button(description="Draw", button_style="primary", tooltip="Sample base and tuned")
        self.error = ipywidgets.HTML()
        self.pictures = {name: ipywidgets.HTML() for name in ("guided", "tuned")}
        self.slider = Slider(before_label="guided", after_label="tuned", layout={"width": f"{SIDE}px", "margin": "2px"})
        self.draw.on_click(lambda _: self.sample())
        # a narrow page puts the pictures below each other; visible, or else a focus ring at the edge would be cut off
        row = {"flex_flow": "row wrap", "overflow": "visible"}
        controls = [self.prompt, self.seed, self.steps, self.guidance, self.adapter_scale, self.draw, self.error]
        self.widget = ipywidgets.VBox(
            [*controls, ipywidgets.HBox([*self.pictures.values(), self.slider], layout=row)], layout={"overflow": "visible"}
        )
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
            self.pictures[name].value = _figure(name, prompt, urls[name], samples)
        with self.slider.hold_sync():
            self.slider.before, self.slider.after, self.slider.alt = urls["guided"], urls["tuned"], prompt
        self.error.value = self._cut(prompt)

    def _cut(self, prompt: str) -> str:
        """A sentence where the text encoder does not read the whole prompt; else nothing."""
        tokenizer = self.sampler.base.tokenizer()
        tokens, most = len(tokenizer(prompt).input_ids), tokenizer.model_max_length
        return (
            f"The text encoder reads {most} tokens, and the prompt has {tokens}: its end is not drawn." if tokens > most else ""
        )


def _figure(name: str, prompt: str, url: str, samples: Samples) -> str:
    alt = escape(f"{name}: {prompt}", quote=True)
    look = "pixelated" if samples.images.shape[2] < SIDE else "auto"
    image = f'<img src="{url}" alt="{alt}" width="{SIDE}" height="{SIDE}" style="image-rendering: {look}">'
    cost = f"<figcaption>{name}: {samples.nfe:g} UNet passes, {samples.seconds:.2f} s</figcaption>"
    return f'<figure style="margin: 0 12px 0 0">{image}{cost}</figure>'


def playground(config: Play) -> Playground:
    """A playground over a run's base and adapter. Errors: FileNotFoundError where the run has no adapter yet."""
    return Playground(load_sampler(Run(config.run)), config)
