"""Adapters in the weights of a pipeline: this run's, and those of other runs."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, ModelMixin

from ...files import ROOT
from ...models import BaseError, StableDiffusion
from ...models.lora.checks import check_adapter, lora_targets_of
from ...models.lora.metadata import LORA_FILE, load_metadata
from ...run.run import Run

ScaledAdapters = Sequence[tuple[Path, float]]  # folders of adapters, each with its λ


class AdapterLoader:
    """Adapters on the denoiser of a base's pipeline, loaded the stock way and off until `fused`.

    layers: all layers that an adapter may lie on, by name
    """

    def __init__(self, pipe: DiffusionPipeline, base: StableDiffusion):
        self.pipe = pipe
        self.base = base
        self.layers = lora_targets_of(self.denoiser)
        self._loaded = {}
        self._originals = {}

    @property
    def denoiser(self) -> ModelMixin:
        """The denoiser of the pipeline."""
        return self.base.denoiser_of(self.pipe)

    def load(self, folder: Path):
        """Load an adapter, unless it is loaded already.

        Errors: BaseError for an adapter of another base, AdapterError for one that cannot be used.
        """
        check_same_base(self.base, load_metadata(folder), folder)
        stamp = change_stamp(folder / LORA_FILE)
        # the file may have been trained again since it was loaded
        if folder in self._loaded and self._loaded[folder][1] == stamp:
            return
        # before diffusers reads it, so that an error says what is wrong with the file
        check_adapter(folder / LORA_FILE, self.layers, self.base.denoiser_part)
        # a new name each time: peft refuses one that is loaded
        name = f"onepass-{len(self._originals)}-{len(self._loaded)}-{stamp[0]}"
        with warnings.catch_warnings():
            # several adapters are meant
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            self.pipe.load_lora_weights(str(folder), weight_name=LORA_FILE, adapter_name=name)
        self.pipe.disable_lora()
        if folder in self._loaded:
            # its weights would stay in memory for as long as the sampler lives
            self.denoiser.delete_adapters(self._loaded[folder][0])
        self._loaded[folder] = name, stamp
        for layer_name, layer in self.adapted_layers():
            # copied before the first adapter is fused into it
            if layer_name not in self._originals:
                self._originals[layer_name] = layer.weight, layer.weight.detach().clone()

    @contextmanager
    def fused(self, adapters: ScaledAdapters) -> Iterator[None]:
        """Add adapters into the weights, so that a pass costs a plain one.

        Afterwards the base's weights are back, bit for bit.
        """
        names = [self._loaded[folder][0] for folder, _ in adapters]
        part = self.base.denoiser_part
        try:
            self.pipe.enable_lora()
            # not `fuse_lora(lora_scale=…)`: it multiplies into a layer and stays there
            self.pipe.set_adapters(names, [scale for _, scale in adapters])
            self.pipe.fuse_lora(components=[part], adapter_names=names)
            yield
        finally:
            self.pipe.unfuse_lora(components=[part])
            # unfusing subtracts, which rounds; the copies restore the exact weights
            for weight, original in self._originals.values():
                weight.data.copy_(original)
            self.pipe.disable_lora()

    @torch.no_grad()
    def merged_denoiser(self, adapters: ScaledAdapters) -> ModelMixin:
        """Return another denoiser of the base, without adapters' layers, these in its weights."""
        denoiser = self.base.denoiser().to(self.denoiser.device)
        if adapters:
            with self.fused(adapters):
                for name, layer in self.adapted_layers():
                    denoiser.get_submodule(name).weight.copy_(layer.weight)
        return denoiser

    def adapted_layers(self) -> list[tuple[str, torch.nn.Module]]:
        """Return the base's layers that adapters lie on, by their names without any adapter."""
        modules = self.denoiser.named_modules()
        return [
            (name, module.base_layer) for name, module in modules if hasattr(module, "base_layer")
        ]


def change_stamp(path: Path) -> tuple[int, int]:
    """Return what changes when a file is written again: its time and size."""
    status = path.stat()
    # in nanoseconds: two trainings may end within a second
    return status.st_mtime_ns, status.st_size


def check_same_base(
    base: StableDiffusion,
    metadata: dict,
    folder: Path,
):
    """Raise BaseError if an adapter was trained on another base, by the recorded hash."""
    # by hash: two bases may have one name
    if base.hash != metadata["base_hash"]:
        raise BaseError(
            f"base {base.name!r} has hash {base.hash:.16}; {folder} was trained on "
            f"{metadata.get('base', 'one')!r} with hash {metadata['base_hash']:.16}. "
            "Give the run that base again, or train on this one"
        )


def find_adapter(folder: str) -> Path:
    """Return the folder of an adapter.

    folder: that folder or the folder of a run, absolute or relative to the project
    Errors: FileNotFoundError, with what to do.
    """
    path = (ROOT / Path(folder).expanduser()).resolve()
    # its adapter folder may hold an earlier training's
    if Run(path).stage_record("train").get("status") == "running":
        raise FileNotFoundError(
            f"contender {folder!r}: its training has not ended; wait for it, or resume it with "
            "`onepass resume`"
        )
    for candidate in (path, path / "adapter"):
        if (candidate / LORA_FILE).is_file():
            return candidate
    if (path / "model" / "model_index.json").is_file():
        raise FileNotFoundError(
            f"contender {folder!r}: all its weights were trained; give `pipeline {folder}/model`"
        )
    raise FileNotFoundError(
        f"contender {folder!r}: there is no adapter in it; give a run that was trained "
        f"(notebooks/2_train.ipynb), or a folder with a {LORA_FILE}"
    )
