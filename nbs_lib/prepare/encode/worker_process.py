"""A worker process: it decodes images, and encodes those that are kept.

It holds the pictures of a few chunks between the two steps, so that an image is decoded once and no
picture travels between processes.
"""

import ctypes
import gc
import os
import resource
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.multiprocessing import _prctl_pr_set_pdeathsig

from ...config import Prepare
from ...models import BaseError, StableDiffusion
from ..captioning.captioner import Captioner
from ..examples import ImageRef, SourceError
from ..filters import ImageInfo
from .encoder import Cropping, Encoder, LatentsTask, load_picture
from .teacher_cache import TeacherCache


class WorkerError(RuntimeError):
    """A worker process that ended too early, or has not the memory to start."""


class Worker:
    """The jobs of a worker process, each a method that is called by its name."""

    def __init__(self, base: StableDiffusion, device: torch.device, batch_size: int):
        self.encoder = Encoder(base, device, batch_size)
        self.pictures: dict[int, dict] = {}  # of each chunk, by position; None for a fault
        self.teacher: TeacherCache | None = None
        self.captioner: Captioner | None = None
        # These jobs are the encoder's own.
        self.write_texts = self.encoder.write_texts
        self.write_unconditional = self.encoder.write_unconditional
        self.decode_latents = self.encoder.decode

    def decode_images(
        self,
        chunk: int,
        images: dict[int, ImageRef],
        cropping: Cropping,
        hashed: bool,
    ) -> dict[int, ImageInfo]:
        """Decode images of a chunk and hold their pictures. images: by their position in it."""
        infos = {}
        pictures = {}
        for i, image in images.items():
            infos[i], pictures[i] = load_picture(image, cropping, hashed)
        self.pictures[chunk] = pictures
        return infos

    def write_latents(
        self,
        chunk: int,
        tasks: Sequence[LatentsTask],
        known_images: dict[int, tuple[ImageRef, bytes]],
        cropping: Cropping,
    ):
        """Write a chunk's shards and release its pictures.

        known_images: images with their digests that `decode_images` was not called for, as the
            index had their properties.
        """
        pictures = self.pictures.pop(chunk, {})
        # Most of these are encoded already; only rows that no cache has are decoded here.
        for i, (image, digest) in known_images.items():
            if pictures.get(i) is None:
                pictures[i] = reload_picture(image, digest, cropping)
        for task in tasks:
            self.encoder.write_latents(task, pictures)

    def draft_captions(self, folder: Path, images: Sequence[ImageRef]) -> list[str]:
        """Return a caption for each image, see `Captioner`. folder: of the captioner."""
        # The model is loaded with the first images: most preparations have no captioner.
        if self.captioner is None:
            self.captioner = Captioner(folder, self.encoder.device)
        return self.captioner.draft(list(images))

    def write_predictions(self, unconditional: Path, config: Prepare, *arguments: Any):
        """Write a shard of the teacher's predictions, see `TeacherCache`."""
        # The UNet is loaded with the first shard: most preparations have no teacher.
        if self.teacher is None:
            encoder = self.encoder
            self.teacher = TeacherCache(encoder.base, encoder.device, unconditional, config)
        self.teacher.write(*arguments)

    def release_text_models(self):
        """Free text encoders and captioner: large ones would leave no room for the teacher."""
        # some workers got no captions
        self.encoder.__dict__.pop("text_encoders", None)
        self.captioner = None
        gc.collect()
        # the C library keeps freed memory, see `keep_freed_memory`, until it is asked
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
        if self.encoder.device.type == "cuda":
            torch.cuda.empty_cache()

    def peak_memory(self) -> int:
        """Return the bytes of this process at its peak so far, on its GPU or in memory."""
        if self.encoder.device.type == "cuda":
            return torch.cuda.max_memory_reserved(self.encoder.device)
        # in KiB, on Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def serve(pipe: Connection, base: StableDiffusion, number: int, cuda: bool, batch_size: int):
    """Do the jobs that come through a pipe until it is closed."""
    # A worker ends with its main process, which alone handles interrupts.
    _prctl_pr_set_pdeathsig(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # OpenMP's threads do not survive a fork, and there is a process for each core.
    torch.set_num_threads(1)
    keep_freed_memory()
    sys.stdin = open(os.devnull)  # noqa: SIM115
    device = torch.device("cpu")
    if cuda:
        device = torch.device("cuda", number % torch.cuda.device_count())
    worker = Worker(base, device, batch_size)
    while True:
        try:
            ticket, job, arguments = pipe.recv()
        except EOFError:
            return
        try:
            result = getattr(worker, job)(*arguments)
            pipe.send((ticket, False, result))
        except Exception as failure:
            pipe.send((ticket, True, _portable(failure)))


def keep_freed_memory():
    """Make the C library keep freed memory instead of returning it to the system each time.

    A VAE allocates and frees the same sizes for every batch. The system would clear these pages a
    hundred times a second, and a process' memory at a moment would be chance. Source: mallopt(3).
    """
    with suppress(AttributeError, OSError):  # the C library is not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: nothing is mapped apart
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def reload_picture(image: ImageRef, digest: bytes, cropping: Cropping) -> Image.Image:
    """Return the picture of an image that was decoded before. Errors: SourceError if it changed."""
    info, picture = load_picture(image, cropping)
    if picture is None or info.digest != digest:
        raise SourceError(
            f"{image.name!r} was changed or removed while it was being prepared; "
            "run this stage again"
        )
    return picture


def _portable(failure: Exception) -> Exception:
    """Return an error that can be pickled for the main process."""
    if isinstance(failure, BaseError | SourceError):
        return type(failure)(str(failure))
    if isinstance(failure, OSError) and failure.errno:
        return OSError(failure.errno, failure.strerror, str(failure.filename or ""))
    # Other errors are bugs; the main process cannot show where they were raised.
    traceback.print_exception(failure)
    return WorkerError(f"encoding failed: {type(failure).__name__}: {failure}")
