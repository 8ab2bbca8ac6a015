"""Pictures as tensors in [-1, 1] and as bytes in [0, 255]."""

import numpy as np
import torch


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """Return pictures uint8 [n, h, w, 3] as fp32 [n, 3, h, w] in [-1, 1]."""
    # 127.5, so that 0 and 255 become exactly -1 and 1
    return torch.as_tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(pixels: torch.Tensor) -> np.ndarray:
    """Return pictures [n, 3, h, w] in [-1, 1], clamped to that range, as uint8 [n, h, w, 3]."""
    # a VAE's output reaches a little beyond [-1, 1]
    values = (pixels / 2 + 0.5).clamp(0, 1) * 255
    return values.round().byte().permute(0, 2, 3, 1).cpu().numpy()


def unit_to_uint8(images: np.ndarray) -> np.ndarray:
    """Return pictures in [0, 1], as stock pipelines give them, as uint8 of the same shape."""
    # rounded, as diffusers saves pictures; a cast alone would cut
    return (images * 255).round().astype(np.uint8)
