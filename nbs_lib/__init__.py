"""Onepass: guidance distillation of Stable Diffusion into a LoRA, from notebooks.

The map; a module imports only from its own line and from lines above it:

project          the folder of the notebooks, the recipes and the runs
files            atomic files and folders, JSON lines, hashes
untrusted_files  bounded reads of files that someone else may have written
diffusion, flow  the maths: noising, guidance, conversions between predictions, weights
images           pictures as tensors and bytes, grids, one palette, HTML templates

config           the parameters of the notebooks, with defaults and checks; contenders, grid axes
run              one execution and its folder: record, fingerprint, locks, environment
cache            the format that prepare writes and train and compare read
models           bases (SD 1, SD 2, SDXL, SD 3): loading, checks, hashes; LoRA adapters

launch           the processes of a stage, on one host or several
picturebook      the embedded data set and the tiny Stable Diffusion trained on it
prepare          images and captions -> cache
train            cache -> adapter
compare          adapter -> pictures, numbers, report
export           adapter -> diffusers, A1111, ComfyUI, a merged pipeline, the hub, a Gradio page
pipeline         a recipe -> the three notebooks -> a run; sweeps, lists, cluster jobs
cli              the `onepass` command
reference        the pages of docs/reference/, written from all of the above

prepare, train and compare never import one another: they meet in the files of a run.
"""

import logging
import os

# torch.cuda.is_available(), which diffusers calls when it is imported, then asks the driver's NVML
# and leaves CUDA untouched. With CUDA in use a kernel could not fork the training's processes.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

# Messages that would stand in red in the notebooks and ask for nothing.
_TRUNCATED = "part of your input was truncated"
_PIPELINES = "diffusers.pipelines"
_QUIET = {
    # Onepass does without torchvision, and without a LoRA of the text encoder
    "transformers.utils.import_utils": "requires torchvision (not installed); falling back",
    "diffusers.loaders.lora_base": "No LoRA keys associated to CLIPTextModel",
    # repeated with the prompt's end for each batch; a comparison says it once
    f"{_PIPELINES}.stable_diffusion.pipeline_stable_diffusion": _TRUNCATED,
    f"{_PIPELINES}.stable_diffusion_xl.pipeline_stable_diffusion_xl": _TRUNCATED,
    # a traceback of sockets when a kernel is ended while it answers: its user ended it
    "tornado.general": "Uncaught exception in ZMQStream callback",
}
for _logger, _message in _QUIET.items():
    logging.getLogger(_logger).addFilter(
        lambda record, message=_message: message not in record.getMessage()
    )
