"""Bases: folders in diffusers' layout, found, checked and loaded as prepare, training and sampling do."""

import json
import os
import shutil
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file

from nbs_lib.models import BaseError, find_base
from nbs_lib.models.parts import CONFIGS, INDEX, WEIGHTS
from tests.conftest import write_tiny_base
from tests.fuzz import damaged
from tests.fuzz.adapters import spoil_weight, written
from tests.fuzz.hostile import put_no_file, spoil


class Fuzzer:
    def __init__(self, folder: Path):
        torch.set_num_threads(1)
        self.folder = folder
        self.bases = [write_tiny_base(kind, folder / kind) for kind in ("sd1", "sd2-v", "sdxl")]
        self.weights = {
            base: {part: load_file(self._file(base, part)) for part in WEIGHTS if (base / part).is_dir()} for base in self.bases
        }
        for base in self.bases:
            self._load(base, CONFIGS)

    def case(self, rng: Random) -> str:
        base, place = rng.choice(self.bases), self.folder / "case"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(base, place, copy_function=os.link)
        parts = sorted(self.weights[base]) if rng.random() < 0.3 else sorted({path.parent.name for path in base.glob("*/*")})
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
        return self._read(place, [part])

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
        whole.with_name(f"{whole.name}.index.json").write_bytes(damaged(rng, text) if rng.random() < 0.3 else text)

    def _read(self, place: Path, parts: list[str]) -> str:
        try:
            self._load(place, parts)
        except BaseError as refused:
            assert "\n" not in str(refused) and len(str(refused)) < 2000, str(refused)
            return "refused"
        return "accepted"

    @torch.no_grad()
    def _load(self, place: Path, parts: list[str]):
        """Load some parts; what is accepted has to compute numbers of the right shapes."""
        base = find_base(str(place))
        alphas = base.scheduler().alphas_cumprod
        assert bool(alphas.isfinite().all())
        base.vae_factor, base.latent_channels, base.prediction_type, base.title  # noqa: B018
        if any(part.startswith(("text_encoder", "tokenizer")) for part in parts):
            assert bool(base.unconditional(base.text_encoders()).context.isfinite().all())
        side = 4 * base.vae_factor
        latents = torch.zeros(1, base.latent_channels, 4, 4)
        if "vae" in parts:
            vae = base.vae()
            assert base.encode(vae, torch.zeros(1, 3, side, side)).shape == latents.shape
            assert base.decode(vae, latents).shape == (1, 3, side, side)
        if "unet" in parts:
            text = base.random_text(1, 8, torch.Generator())
            added = base.added(text.pooled, latents)
            assert base.unet()(latents, torch.tensor([5]), text.context, added_cond_kwargs=added).sample.shape == latents.shape


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
            file.with_name(rng.choice((f"{file.stem}.fp16{file.suffix}", f"{file.name}.bin", "ü\n.json", file.name.upper())))
        )
