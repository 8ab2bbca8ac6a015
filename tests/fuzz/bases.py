"""Bases: folders in diffusers' layout, read as prepare, training and sampling read them."""

import json
import os
import shutil
from pathlib import Path
from random import Random

import diffusers
import torch
from safetensors.torch import load_file

from nbs_lib.config.contenders import SCHEDULERS
from nbs_lib.models import BaseError, StableDiffusion, find_base
from nbs_lib.models.components import CONFIGS, INDEX, WEIGHTS
from nbs_lib.models.stable_diffusion import token_ids
from tests.conftest import write_tiny_base
from tests.fuzz import damaged
from tests.fuzz.adapters import spoil_weight, written
from tests.fuzz.hostile import put_no_file, spoil


class Fuzzer:
    def __init__(self, folder: Path):
        torch.set_num_threads(1)
        self.folder = folder
        self.bases = [
            write_tiny_base(kind, folder / kind) for kind in ("sd1", "sd2-v", "sdxl", "sd3-t5")
        ]
        self.weights = {
            base: {
                part: load_file(self._file(base, part))
                for part in WEIGHTS
                if (base / part).is_dir()
            }
            for base in self.bases
        }
        for base in self.bases:
            place = shutil.copytree(base, folder / f"case {base.name}", copy_function=os.link)
            for part in base.glob("*/"):
                self._load(place, part.name, thorough=True)

    def case(self, rng: Random) -> str:
        base = rng.choice(self.bases)
        place = self.folder / f"case {base.name}"
        parts = (
            sorted(self.weights[base])
            if rng.random() < 0.3
            else sorted({path.parent.name for path in base.glob("*/*")})
        )
        part = rng.choice(parts)
        match rng.randrange(10):
            case 0 | 1 | 2 | 3:
                self._spoil_settings(rng, place / part / CONFIGS[part])
            case 4 | 5:
                self._spoil_weights(rng, base, place, part if part in WEIGHTS else "text_encoder")
            case 6:
                file = rng.choice(sorted((place / part).iterdir()))
                _replace(file, damaged(rng, file.read_bytes()))
            case 7:
                file = rng.choice(sorted((place / part).iterdir()))
                put_no_file(rng, file) if rng.random() < 0.5 else _move(rng, file)
            case 8:
                self._in_shards(rng, place, "unet" if part not in WEIGHTS else part)
            case 9:
                self._spoil_settings(rng, place / INDEX)
        outcome = self._read(place, part, thorough=rng.random() < 0.1)
        for spoilt in (INDEX, part, "unet", "text_encoder"):
            _restore(base / spoilt, place / spoilt)
        return outcome

    def _file(self, base: Path, part: str) -> Path:
        return base / part / f"{WEIGHTS[part]}.safetensors"

    def _spoil_settings(self, rng: Random, file: Path):
        settings = json.loads(file.read_text())
        for _ in range(rng.choice((1, 1, 2, 3))):
            spoil(rng, settings)
        text = json.dumps(settings).encode()
        _replace(file, damaged(rng, text) if rng.random() < 0.2 else text)

    def _spoil_weights(self, rng: Random, base: Path, place: Path, part: str):
        weights = dict(self.weights[base][part])
        spoil_weight(rng, weights)
        _replace(self._file(place, part), written(rng, weights, {"format": "pt"}))

    def _in_shards(self, rng: Random, place: Path, part: str):
        """Put an index before the weights: right, or wrong in its names."""
        whole = self._file(place, part)
        shard = whole.with_name(f"{WEIGHTS[part]}-00001-of-00001.safetensors")
        whole.rename(shard)
        index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(shard), shard.name)}
        if rng.random() < 0.8:
            spoil(rng, rng.choice([index, index["weight_map"]]))
        text = json.dumps(index).encode()
        whole.with_name(f"{whole.name}.index.json").write_bytes(
            damaged(rng, text) if rng.random() < 0.3 else text
        )

    def _read(self, place: Path, part: str, thorough: bool) -> str:
        try:
            self._load(place, part, thorough)
        except BaseError as refused:
            assert "\n" not in str(refused) and len(str(refused)) < 2000, str(refused)
            return "refused"
        return "accepted"

    def _load(self, place: Path, part: str, thorough: bool):
        """Load a part; an accepted part must load.

        thorough: also check that it computes numbers of the right shapes.
        """
        base = find_base(str(place))
        if part.startswith("tokenizer"):
            assert token_ids(["a b"], base.tokenizer_of(part)).ndim == 2
        elif part == "scheduler":
            for kind in SCHEDULERS:
                base.scheduler(getattr(diffusers, kind)).set_timesteps(3)
        else:
            getattr(base, part)()
        if thorough:
            compute(base)


@torch.no_grad()
def compute(base: StableDiffusion):
    """Put a text and a picture through all parts of a base."""
    text = base.encode_negative_prompt(base.text_encoders())
    assert bool(text.context.isfinite().all()) and bool(
        base.noise_schedule().sigmas.isfinite().all()
    )
    vae, side = base.vae(), 4 * base.vae_scale_factor
    latents = base.encode(vae, torch.zeros(1, 3, side, side))
    assert latents.shape == (1, base.latent_channels, 4, 4) and base.decode(vae, latents).shape == (
        1,
        3,
        side,
        side,
    )
    made = base.predict(base.denoiser(), latents, torch.tensor([5]), text.context, text.pooled)
    assert (
        made.shape == latents.shape and base.random_text(1, 8, torch.Generator()).context.ndim == 3
    )


def _restore(right: Path, place: Path):
    """Put a file back, or all files of a folder."""
    if right.is_file():
        place.unlink(missing_ok=True)
        os.link(right, place)
        return
    for path in place.iterdir() if place.is_dir() else ():
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    for path in right.iterdir() if right.is_dir() else ():
        os.link(path, place / path.name)


def _replace(file: Path, data: bytes):
    """Write another file in the place of one, whose bytes other links keep."""
    file.unlink()
    file.write_bytes(data)


def _move(rng: Random, file: Path):
    """Give a file another name, or leave it out."""
    if rng.random() < 0.3:
        file.unlink()
    else:
        file.rename(
            file.with_name(
                rng.choice(
                    (
                        f"{file.stem}.fp16{file.suffix}",
                        f"{file.name}.bin",
                        "ü\n.json",
                        file.name.upper(),
                    )
                )
            )
        )
