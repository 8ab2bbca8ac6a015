"""An image-to-text model of transformers, such as BLIP or GIT, in a folder or on the hub."""

from pathlib import Path

import torch
from PIL import Image

from ...files import file_hash, value_hash
from ...models import model_folder
from ...models.checks.headers import FileError
from ...models.model_folder import FILES, find_model_folder, load_model, load_part
from ...run.environment import versions
from ...run.fingerprint import files_hash
from ..examples import ImageRef, SourceError
from ..images import ImageError, to_rgb, upright

MAX_TOKENS = 40  # of a caption
BEAMS = 3  # captions that are searched at once


def find_captioner(name: str) -> Path:
    """Return the folder of a captioner, fetched if its name is a hub id. Errors: SourceError."""
    try:
        return find_model_folder(name)
    except FileError as failure:
        raise _error(name, str(failure)) from failure


def captioner_hash(folder: Path) -> str:
    """Return a hash over all besides the picture that a caption depends on."""
    paths = sorted(path for pattern in FILES for path in folder.glob(pattern))
    files = [[path.name, file_hash(path)] for path in paths]
    code = files_hash([Path(__file__), Path(model_folder.__file__)])
    return value_hash([files, code, versions()["transformers"]])


class Captioner:
    """A frozen captioner on a device."""

    def __init__(self, folder: Path, device: torch.device):
        """Load the model. Errors: SourceError, with what to do."""
        # here: only a preparation with a captioner needs them
        from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

        try:
            self.model = load_model(AutoModelForImageTextToText, folder).to(device)
            self.processor = load_part(AutoImageProcessor, folder, backend="pil")
            self.tokenizer = load_part(AutoTokenizer, folder)
        except FileError as failure:
            raise _error(str(folder), str(failure)) from failure

    def draft(self, images: list[ImageRef]) -> list[str]:
        """Return a caption for each image, "" for one that cannot be decoded."""
        pictures = {}
        for index, image in enumerate(images):
            try:
                pictures[index] = to_rgb(upright(image.load()[0]))
            except ImageError:
                # the image without a caption is listed as such
                continue
        captions = [""] * len(images)
        if pictures:
            texts = self._caption(list(pictures.values()))
            for index, text in zip(pictures, texts, strict=True):
                captions[index] = text
        return captions

    @torch.no_grad()
    def _caption(self, pictures: list[Image.Image]) -> list[str]:
        pixels = self.processor(pictures, return_tensors="pt").pixel_values
        # a beam search draws nothing by chance, so a picture always has the same caption
        ids = self.model.generate(
            pixel_values=pixels.to(self.model.device),
            max_new_tokens=MAX_TOKENS,
            num_beams=BEAMS,
            do_sample=False,
        )
        return self.tokenizer.batch_decode(ids, skip_special_tokens=True)


def _error(name: str, problem: str) -> SourceError:
    return SourceError(
        f"captioner {name!r}: {problem}; give the folder or hub id of an image-to-text model, such "
        "as BLIP or GIT, with its preprocessor, its tokenizer and weights as safetensors"
    )
