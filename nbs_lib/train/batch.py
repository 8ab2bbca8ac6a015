"""A batch: what a pass of the training is given, of one example or more."""

from dataclasses import dataclass, fields, replace

import torch


@dataclass(frozen=True)
class Batch:
    """latents, noise [n, c, h, w]; t [n] in [0, 1000); context and uncond [n, tokens, width]; w and weight [n]; example [n].

    context: of the captions, some of them dropped in finetune; uncond: of the negative prompt. w: the teacher's guidance
    scale; weight: of each example's loss; example: its place in the cache. answers: the teacher's kept predictions without
    and with the caption, [n, c, h, w]; x_t: the states they are about, where these are not the noised latents.
    pooled, uncond_pooled: context and uncond once more, pooled, [n, p]; None where the base's family has none.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    t: torch.Tensor
    context: torch.Tensor
    uncond: torch.Tensor
    w: torch.Tensor
    weight: torch.Tensor
    example: torch.Tensor
    answers: tuple[torch.Tensor, torch.Tensor] | None = None
    x_t: torch.Tensor | None = None
    pooled: torch.Tensor | None = None
    uncond_pooled: torch.Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {
            name: part.to(device) for name, part in parts.items() if isinstance(part, torch.Tensor)
        }
        if self.answers:
            moved["answers"] = tuple(part.to(device).float() for part in self.answers)
        return replace(self, **moved)

    def at(self, t: torch.Tensor) -> "Batch":
        """The same examples and noise at other timesteps."""
        return replace(self, t=t)
