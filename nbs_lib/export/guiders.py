"""The guidance of an adapter and of a comparison, as guiders of diffusers' modular pipelines.

guider/             the adapter's own guidance, a scale of 1 if one pass holds it
guider-selective-N/ the base's guidance in the contender selective-N: none on the last N % of steps

Source: diffusers, guiders/classifier_free_guidance.py.
"""

import math
from pathlib import Path

from diffusers import ClassifierFreeGuidance
from diffusers.utils import logging as diffusers_logging

from ..config.contenders import parse_contender
from ..models.sampling_recipe import sampling_recipe


def write_guiders(folder: Path, facts: dict):
    """Write a folder for each guider; see the module's docstring.

    facts: see `model_card.export_metadata`
    """
    # 1 is no guidance: one pass a step
    scale = sampling_recipe(facts)["guidance_scale"]
    _save(folder / "guider", guidance_scale=scale)
    compared = facts["compared"] or {"nfe": {}}
    for name in compared["nfe"]:
        contender = parse_contender(name)
        # its scale and steps may follow the name
        kind = name.split()[0]
        if contender.kind == "base" and kind.startswith("selective-"):
            stop = guided_share(contender.guided, contender.steps or compared["steps"])
            w = contender.scale or facts["w_train"]
            _save(folder / f"guider-{kind}", guidance_scale=w, start=0.0, stop=stop)


def guided_share(share: float, steps: int) -> float:
    """Return `stop` of a guider that guides as many steps as the sampler here.

    share: of the steps that are guided, 0 to 1
    """
    # the sampler rounds to the nearest step, and a guider down
    guided = math.floor(share * steps + 0.5)
    # upwards in the fourth digit: 7 / 25 * 25 may be less than 7
    return min(1.0, math.ceil(guided / steps * 10_000) / 10_000)


def _save(folder: Path, **options: float):
    level = diffusers_logging.get_verbosity()
    # each guider warns that guiders are experimental
    diffusers_logging.set_verbosity_error()
    try:
        ClassifierFreeGuidance(**options).save_pretrained(folder)
    finally:
        diffusers_logging.set_verbosity(level)
