"""A CLIP of both towers, which scores pictures: the embedded base's, or one in a folder."""

from pathlib import Path
from typing import Any

import torch
from transformers import CLIPModel

from ..components import BaseError, no_progress_bar, weights_not_finite
from ..loading import EMBEDDED


def embedded_clip() -> CLIPModel:
    """Return both towers of the embedded base's CLIP, which scores the picture-book's pictures."""
    return load_clip_folder(EMBEDDED / "clip", local_files_only=True)


def load_clip_folder(folder: Path | str, **options: Any) -> CLIPModel:
    """Return a frozen CLIP in fp32.

    folder: or a hub id
    options: of `from_pretrained`

    Errors: BaseError if weights are missing or no numbers, and the errors of `from_pretrained`
    """
    with no_progress_bar():
        clip, info = CLIPModel.from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **options
        )
    # transformers draws missing weights at random
    missing = sorted(info["missing_keys"])
    if missing:
        raise BaseError(
            f"clip {str(folder)!r} lacks {len(missing)} weights, for example {missing[0]}; "
            "fetch it again"
        )
    broken = weights_not_finite(clip)
    if broken:
        raise BaseError(
            f"clip {str(folder)!r} has weights that are no numbers ({broken}); fetch it again"
        )
    return clip.requires_grad_(False).eval()
