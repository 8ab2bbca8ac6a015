"""A CLIP under training, with a layer that reads a scene's attributes from an embedding."""

from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy
from transformers import CLIPModel

from ..captions import ATTRIBUTES, TIMES_OF_DAY, Caption

NO_VALUE = -100  # the target that cross_entropy ignores


class ClipWithReader(torch.nn.Module):
    """A CLIP with a linear layer that reads a scene's attributes from an embedding.

    The contrastive loss alone does not start: while one tower does not tell left from right, the
    other has nothing to gain from it. The reader is applied to each tower by itself, and it is
    thrown away with this module.
    """

    def __init__(self, clip: CLIPModel, seed: int):
        super().__init__()
        self.clip = clip
        self.values: dict[str, tuple[str, ...]] = {}
        for attributes in ATTRIBUTES.values():
            self.values |= attributes
        self.values["time"] = TIMES_OF_DAY  # one kind has fewer
        outputs = sum(map(len, self.values.values()))
        # first weights that are not zero: from zero neither tower would get a gradient
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.reader = torch.nn.Linear(clip.config.projection_dim, outputs)

    def forward(
        self, ids: torch.Tensor, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return similarities of pictures to captions, and the values read from both.

        Shapes: [n, n], and twice [n, all values].
        """
        output = self.clip(input_ids=ids, pixel_values=x)
        # embeddings are on the unit sphere; CLIP's own factor sharpens the softmax
        scale = self.clip.logit_scale.exp()
        from_image = self.reader(output.image_embeds) * scale
        from_text = self.reader(output.text_embeds) * scale
        return output.logits_per_image.float(), from_image.float(), from_text.float()

    def targets(self, captions: Sequence[Caption | None], named: bool) -> torch.Tensor:
        """Return the index of each attribute's value, int64 [n, attributes]; NO_VALUE for none.

        captions: None for a picture that is no scene
        named: only the attributes that the caption names
        """
        return torch.tensor([self._target(caption, named) for caption in captions])

    def _target(self, caption: Caption | None, named: bool) -> list[int]:
        if caption is None:
            return [NO_VALUE] * len(self.values)
        scene = caption.scene.attributes
        readable = [name for name in scene if not named or name in caption.named]
        return [
            values.index(scene[name]) if name in readable else NO_VALUE
            for name, values in self.values.items()
        ]

    def reading_loss(self, read: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean cross entropy over all values that can be read.

        read: [n, all values]
        targets: [n, attributes]
        """
        parts = read.split([len(values) for values in self.values.values()], dim=1)
        losses = [
            cross_entropy(part, target, reduction="sum")
            for part, target in zip(parts, targets.T, strict=True)
        ]
        return sum(losses) / (targets >= 0).sum()
