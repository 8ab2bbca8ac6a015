"""The model card beside an adapter."""

from typing import Any

from ..files import write_atomic
from ..run import Run

CARD = """---
library_name: diffusers
base_model: {base}
tags: [lora, text-to-image, stable-diffusion, guidance-distillation]
---
# {name}

A LoRA that makes one UNet pass predict what classifier-free guidance at w = {w_train:g} needs two passes for.
Load it and sample with `guidance_scale=1`: every step costs half, and a negative prompt has no effect.

```python
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained(BASE)  # {base}
pipe.load_lora_weights("adapter")
image = pipe("a prompt", guidance_scale=1).images[0]
```

| | |
|---|---|
| base | `{base}`, hash `{base_hash:.16}` |
| guidance scale it was trained for | {w_train:g} |
| rank, alpha | {rank}, {alpha:g} (alpha / rank is folded into the weights) |
| steps, batch, learning rate | {steps}, {batch} × {processes}, {lr:g} |
| launched as | {distributed_type}, ZeRO {zero_stage}, {processes} processes, {precision} |
| last loss | {loss:.5f} |
| loaded back by stock diffusers | predictions differ by {stock_difference:.2g} at most |
"""


def write_card(run: Run, facts: dict[str, Any], result: dict[str, Any]):
    """Write adapter/README.md. facts: as recorded in the weights; result: what the launch left."""
    train = facts["train"]
    values = facts | train | result | {"name": run.name, "batch": train["batch_size"]}
    write_atomic(run.adapter / "README.md", CARD.format(**values))
