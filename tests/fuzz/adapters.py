"""Adapters: folders with an adapter or a record, loaded as sampling and the export load them."""

import json
from pathlib import Path
from random import Random
from typing import Any

import torch
from peft import LoraConfig
from safetensors import safe_open

from nbs_lib.compare.sampling.adapters import AdapterLoader
from nbs_lib.export.model_card import export_card, export_metadata
from nbs_lib.models import BaseError, find_base
from nbs_lib.models.lora.checks import AdapterError, check_adapter, lora_targets_of
from nbs_lib.models.lora.layers import ADAPTER_NAME
from nbs_lib.models.lora.metadata import LORA_FILE, METADATA_FILE, METADATA_KEY
from nbs_lib.models.lora.saving import save_adapter
from nbs_lib.run.run import Run
from tests.conftest import write_tiny_base
from tests.fuzz import damaged
from tests.fuzz.hostile import put_no_file, spoil, value

SETTINGS = "lora_adapter_metadata"
NUMBERS = (float("nan"), float("inf"), -float("inf"), 1e30, -1e38, 1e5, 0.0, 1e-40)


class Fuzzer:
    def __init__(self, folder: Path):
        torch.set_num_threads(1)
        self.base = find_base(str(write_tiny_base("sd1", folder / "base")))
        self.pipe = self.base.pipeline()
        self.layers = lora_targets_of(self.pipe.unet)
        self.run = Run(folder / "run")
        self.kinds = []
        for method in ("lora", "dora"):
            unet = self.base.denoiser()
            layers = ["conv_in", "attn1.to_q"]  # few: each takes a millisecond to load
            unet.add_adapter(
                LoraConfig(r=2, lora_alpha=4, target_modules=layers, use_dora=method == "dora"),
                ADAPTER_NAME,
            )
            facts = {
                "base": "embedded", "base_origin": "embedded", "base_hash": self.base.hash,
                "resolution": 32, "w_train": 3.0, "objective": "guidance", "negative": "",
                "train": {"alpha": 4.0, "rank": 2, "method": method},
                "sampling": {"guidance_scale": 1.0, "scheduler": "DDIMScheduler", "steps": None},
            }  # fmt: skip
            file = save_adapter(folder / method, unet, facts)
            with safe_open(file, "pt") as opened:
                weights = {name: opened.get_tensor(name) for name in opened.keys()}
                self.kinds.append((file.read_bytes(), weights, opened.metadata()))
        assert self._read_whole(self.kinds[0][0]) == "accepted"

    def case(self, rng: Random) -> str:
        data, weights, metadata = rng.choice(self.kinds)
        if rng.random() < 0.85:
            data = self._spoilt(rng, dict(weights), dict(metadata))
        if rng.random() < 0.3:
            end = 8 + int.from_bytes(data[:8], "little")
            data = (
                damaged(rng, data) if rng.random() < 0.5 else damaged(rng, data[:end]) + data[end:]
            )
        self._write(data)
        right = any(data == each for each, *_ in self.kinds)
        if rng.random() < 0.05:
            put_no_file(rng, self.run.adapter / rng.choice((LORA_FILE, METADATA_FILE)))
        elif rng.random() < 0.2:
            record = json.loads(metadata[METADATA_KEY])
            spoil(rng, record)
            text = json.dumps(record).encode()
            (self.run.adapter / METADATA_FILE).write_bytes(
                damaged(rng, text) if rng.random() < 0.3 else text
            )
        return self._read(load=not right)

    def _read_whole(self, data: bytes) -> str:
        self._write(data)
        return self._read()

    def _write(self, data: bytes):
        self.run.adapter.mkdir(parents=True, exist_ok=True)
        for path in self.run.adapter.iterdir():
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        (self.run.adapter / LORA_FILE).write_bytes(data)

    def _read(self, load: bool = True) -> str:
        """Describe, load and merge the adapter.

        load: hand an accepted adapter to peft, which takes most of the time.
        """
        try:
            facts = export_metadata(self.run, self.layers)
            export_card("kohya", facts)
            json.dumps(facts, ensure_ascii=False).encode()
            check_adapter(self.run.adapter / LORA_FILE, self.layers)
            if not load:
                return "accepted"
            adapters = AdapterLoader(self.pipe, self.base)
            adapters.load(self.run.adapter)
        except (AdapterError, BaseError, FileNotFoundError) as refused:
            assert "\n" not in str(refused) and len(str(refused)) < 2000, str(refused)
            return "refused"
        try:
            with adapters.fused([(self.run.adapter, 1.0)]):
                changed = [layer.weight for _, layer in adapters.adapted_layers()]
                assert changed and all(bool(weight.isfinite().all()) for weight in changed)
        finally:
            self.pipe.unload_lora_weights()
        return "accepted"

    def _spoilt(
        self, rng: Random, weights: dict[str, torch.Tensor], metadata: dict[str, Any]
    ) -> bytes:
        settings, facts = json.loads(metadata[SETTINGS]), json.loads(metadata[METADATA_KEY])
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            match rng.randrange(4):
                case 0:
                    spoil(rng, settings)
                case 1:
                    pattern = f"unet.{rng.choice(('rank', 'alpha'))}_pattern"
                    settings[pattern] = {
                        str(rng.choice(["to_q", "attn1.to_k", value(rng)])): value(rng)
                    }
                case 2:
                    inner = [
                        each
                        for each in (facts.get("sampling"), facts.get("train"))
                        if isinstance(each, dict)
                    ]
                    spoil(rng, rng.choice([facts, *inner]))
                case 3:
                    spoil_weight(rng, weights)
        metadata |= {SETTINGS: json.dumps(settings), METADATA_KEY: json.dumps(facts)}
        if rng.random() < 0.1:
            metadata[rng.choice((SETTINGS, METADATA_KEY))] = rng.choice(
                ("", "{", "[]", "null", "[" * 9000, str(value(rng)))
            )
        if rng.random() < 0.1:
            metadata.pop(rng.choice((SETTINGS, METADATA_KEY)))
        return written(rng, weights, metadata)


def spoil_weight(rng: Random, weights: dict[str, torch.Tensor]):
    """Take one weight away, or give it another name, value, shape or type."""
    if not weights:
        return
    name = rng.choice(sorted(weights))
    weight = weights.pop(name)
    names = (
        f"{name}.more",
        name.replace("unet", "text_encoder"),
        name.upper(),
        "",
        "unet",
        name[:-3],
    )
    types = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool)
    match rng.randrange(7):
        case 1:
            weights[rng.choice(names)] = weight
        case 2:
            weights[name] = weight.clone()
            if weight.numel():
                weights[name].view(-1)[rng.randrange(weight.numel())] = rng.choice(NUMBERS)
        case 3:
            weights[name] = weight[..., :1].clone() if rng.random() < 0.5 else weight[:0].clone()
        case 4:
            weights[name] = weight.reshape(-1) if rng.random() < 0.5 else weight[None].clone()
        case 5:
            weights[name] = weight.to(rng.choice(types))
        case 6:
            weights[name] = weight.flip(0).mT.contiguous() if weight.ndim > 1 else weight * 2


TYPES = {
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64",
    torch.int64: "I64", torch.bool: "BOOL",
}  # fmt: skip


def written(rng: Random, weights: dict[str, torch.Tensor], metadata: dict[str, Any]) -> bytes:
    """A safetensors file by hand: its library refuses to write some of what others may."""
    header, body = {"__metadata__": metadata}, b""
    for name, weight in weights.items():
        data = (
            weight.contiguous().view(torch.uint8).numpy().tobytes()
            if weight.numel() and weight.ndim
            else b""
        )
        place = [len(body), len(body) + len(data)]
        header[name] = {
            "dtype": TYPES[weight.dtype],
            "shape": list(weight.shape),
            "data_offsets": place,
        }
        body += data
    if rng.random() < 0.05:
        entry = header[rng.choice(list(header))]
        spoil(rng, entry)
    text = json.dumps(header).encode()
    text += b" " * rng.choice((0, 0, -len(text) % 8, 1 << 20))
    size = (
        len(text)
        if rng.random() < 0.95
        else rng.choice((0, 1, 2**63, 2**64 - 1, len(text) + 8, 10**8))
    )
    return size.to_bytes(8, "little") + text + body
