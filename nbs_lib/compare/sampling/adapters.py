"""What was trained, in the weights of a pipeline for a while: this run's adapter, those of other runs, or a whole UNet."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel

from ...files import ROOT
from ...models import BaseError, StableDiffusion
from ...models.lora import LORA_FILE, load_metadata
from ...models.lora_file import check_adapter, lora_targets_of
from ...run.run import Run

Scaled = Sequence[tuple[Path, float]]
"""Folders of adapters, each with its λ."""


class AdapterLoader:
    """Adapters on the UNet of a base's pipeline, loaded the stock way when they are first asked for, and off until then.

    layers: all that an adapter may lie on, by name.
    """

    def __init__(self, pipe: DiffusionPipeline, base: StableDiffusion):
        self.pipe, self.base, self.layers = pipe, base, lora_targets_of(pipe.unet)
        self._names: dict[Path, tuple[str, tuple]] = {}
        self._originals: dict[str, tuple[torch.nn.Parameter, torch.Tensor]] = {}

    def load(self, folder: Path) -> dict[str, Any]:
        """What is recorded with an adapter, which is there from now on.

        Errors: BaseError where it is of another base, AdapterError where it cannot be used.
        """
        facts = load_metadata(folder)
        check_same_base(self.base, facts, folder)
        if self._names.get(folder, ("", None))[1] != (
            stamp := change_stamp(folder / LORA_FILE)
        ):  # it may be trained anew meanwhile
            check_adapter(folder / LORA_FILE, self.layers)
            name = f"onepass-{len(self._originals)}-{len(self._names)}-{stamp[0]}"
            self.pipe.load_lora_weights(str(folder), weight_name=LORA_FILE, adapter_name=name)
            self.pipe.disable_lora()
            self._names[folder] = name, stamp
            for where, layer in self._changed():
                if where not in self._originals:
                    self._originals[where] = layer.weight, layer.weight.detach().clone()
        return facts

    @contextmanager
    def fused(self, scaled: Scaled) -> Iterator[None]:
        """Adapters added into the weights, so that a pass costs a plain one; afterwards the base, bit for bit.

        The strength is set with `set_adapters`: `fuse_lora(lora_scale=…)` multiplies into a layer and stays there.
        """
        names = [self._names[folder][0] for folder, _ in scaled]
        try:
            self.pipe.enable_lora()
            self.pipe.set_adapters(names, [scale for _, scale in scaled])
            self.pipe.fuse_lora(components=["unet"], adapter_names=names)
            yield
        finally:
            self.pipe.unfuse_lora(components=["unet"])
            for weight, original in self._originals.values():  # unfusing subtracts, which rounds
                weight.data.copy_(original)
            self.pipe.disable_lora()

    @torch.no_grad()
    def plain(self, scaled: Scaled) -> UNet2DConditionModel:
        """A UNet of its own without adapters' layers, with these added into its weights."""
        unet = self.base.unet().to(self.pipe.unet.device)
        if scaled:
            with self.fused(scaled):
                for name, layer in self._changed():
                    unet.get_submodule(name).weight.copy_(layer.weight)
        return unet

    def _changed(self) -> list[tuple[str, torch.nn.Module]]:
        """The layers of the base that an adapter lies on, by their names in a UNet without any."""
        return [
            (name, module.base_layer)
            for name, module in self.pipe.unet.named_modules()
            if hasattr(module, "base_layer")
        ]


def change_stamp(path: Path) -> tuple[int, int]:
    """What changes when a file is written anew."""
    told = path.stat()
    return told.st_mtime_ns, told.st_size


def check_same_base(base: StableDiffusion, facts: dict[str, Any], folder: Path):
    """Errors: BaseError where an adapter was trained on another base, by the recorded hash."""
    if base.hash != facts["base_hash"]:
        raise BaseError(
            f"base {base.name!r} has hash {base.hash:.16}; {folder} was trained on {facts.get('base', 'one')!r} with hash "
            f"{facts['base_hash']:.16}. Give the run that base again, or train on this one"
        )


def adapter_of(folder: str) -> Path:
    """The folder of an adapter, given as that or as a run; a relative one is the project's. Errors: FileNotFoundError."""
    path = (ROOT / Path(folder).expanduser()).resolve()
    if Run(path).stage_record("train").get("status") == "running":
        raise FileNotFoundError(
            f"contender {folder!r}: its training has not ended; wait for it, or go on with `onepass resume`"
        )
    for place in (path, path / "adapter"):
        if (place / LORA_FILE).is_file():
            return place
    if (path / "model" / "model_index.json").is_file():
        raise FileNotFoundError(
            f"contender {folder!r}: all its weights were trained; give `pipeline {folder}/model`"
        )
    raise FileNotFoundError(
        f"contender {folder!r}: there is no adapter in it; give a run that was trained (notebooks/2_train.ipynb), or a "
        f"folder with a {LORA_FILE}"
    )
