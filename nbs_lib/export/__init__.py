"""A run's adapter for other programs.

diffusers    pytorch_lora_weights.safetensors, for `load_lora_weights`
kohya        NAME.safetensors, for A1111 and ComfyUI
merged       the base with the adapter added to its weights: a whole pipeline, fp32

Each export is a folder with README.md, the card, and onepass.json, the card's values for programs.
It is loaded back by a stock pipeline, and must draw what the run draws, before it is put in place.

exporter     the export of a run, from its adapter to the folder in place
formats      the three formats, written and loaded back
check        an export's pictures, compared with the run's
kohya        the adapter's weights under kohya's names
comfyui      the weights of an adapter of SD 3, under names that ComfyUI knows
one_pass     the mark by which stock pipelines sample a merged export in one pass
model_card   the card of an export
guiders      the adapter's guidance as diffusers' guiders
hub          a run's repository on the hub: its folder, and the upload
hub_card     the card of that repository
space        a Gradio app of a run, ready for a Space; space_app.py.txt is its source
"""

from .exporter import export
from .kohya import ExportError

__all__ = ["ExportError", "export"]
