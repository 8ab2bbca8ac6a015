"""Onepass: guidance distillation of Stable Diffusion into a LoRA, from notebooks.

The map, in the order in which things depend on one another:

config       the parameters of the notebooks, their defaults and their checks
axes         what varies over a grid of pictures
contenders   who is compared, by name
files        files and folders that appear whole or not at all, and their hashes
disk         what a disk has left
reading      files that somebody else may have written, read within bounds
terminal     text for a terminal, without what it would obey
yaml12       recipes, as YAML 1.2
locks        one process at a time on a run
machine      versions, git commit, machine: what is recorded beside a result
inputs       what a stage rests on besides its parameters
parameters   values checked, and read from YAML, the command line and notebooks
policy       what a browser may take of our pages
records      what a run's record may hold
outdated     results that no longer belong to what lies beside them
course       whether one training is the beginning of another
run          Run: the folder of one execution, its file names and its record
bars         progress bars as a notebook shows them
diffusion    the maths: guidance, conversions between predictions
libraries    the large ones, imported in the quickest way
shards       rows of tensors spread over many files, mapped into memory
models       bases (embedded, local folder or hub id; SD 1, SD 2, SDXL): found, checked, loaded, hashed
compiling    paths with spaces, for what torch compiles
usage        how what was trained is to be sampled
programs     the layers that other programs load a LoRA on
cards        the metadata of a model card
adapter      a LoRA on the UNet: attach, switch, save, load, verify
adapter_file an adapter's file, checked before any library sees it
picturebook  the embedded data set and the tiny Stable Diffusion trained on it
prepare      images and captions -> cache
train        cache -> adapter
compare      adapter -> pictures, numbers, report
export       adapter -> files for diffusers, A1111, ComfyUI, or a merged pipeline
pipeline     a recipe -> the three notebooks -> a run; sweeps, lists, comparisons, cluster jobs
commands     the `onepass` command
"""

import logging
import os

# torch.cuda.is_available(), which diffusers calls when it is imported, then asks the driver's NVML, and leaves CUDA itself
# untouched, without which a kernel could fork no process that trains.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

# Remarks on parts that Onepass does without (torchvision, a LoRA of the text encoder) would stand in red in the notebooks.
for _logger, _remark in (
    ("transformers.utils.import_utils", "requires torchvision (not installed); falling back"),
    ("diffusers.loaders.lora_base", "No LoRA keys associated to CLIPTextModel"),
    # the prompt's end in full, again for each batch; a comparison says it once
    (
        "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
        "part of your input was truncated",
    ),
    (
        "diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl",
        "part of your input was truncated",
    ),
    # of a kernel that is ended while it answers: whoever interrupted it knows, and would see a traceback of its sockets
    ("tornado.general", "Uncaught exception in ZMQStream callback"),
):
    logging.getLogger(_logger).addFilter(
        lambda record, remark=_remark: remark not in record.getMessage()
    )
