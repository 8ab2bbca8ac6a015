"""Where examples come from: the picture-book, or a folder of images with captions.

Every image is decoded once here, one at a time, and let go: an example keeps its hash and the way to load it again.
What cannot be used is never fatal and never silent: it is in `Selection.skipped` with its reason. Only a source that
yields nothing at all is an error.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random

from PIL import Image

from ..config import Prepare
from ..files import ROOT
from ..picturebook.captions import Scene, draw_caption, draw_scene
from ..picturebook.draw import draw
from ..picturebook.unseen import draw_unseen
from .captions import METADATA, Skipped, read_captions, valid_text
from .images import ImageError, decode, to_rgb

PICTUREBOOK, UNSEEN = "picturebook", "unseen"
COMPLETE = 0.7  # how many of the picture-book's captions name every attribute
ENDINGS = (".avif", ".bmp", ".gif", ".heic", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


class SourceError(ValueError):
    """A source without a single usable example, or one that changes while it is read: which, why, what to do."""


@dataclass(frozen=True)
class Example:
    """A captioned image that can be used."""

    id: str
    caption: str
    image_hash: str
    """SHA-256 of the image's file, or of a drawn picture's pixels, in hex."""
    load: Callable[[], Image.Image] = field(repr=False, compare=False)
    """Decodes or draws the image, in its own size and mode."""
    prior: bool = False
    """Whether it is there to keep what the base knew, and not to be learned."""


@dataclass(frozen=True)
class Selection:
    """What a source yielded, in its order."""

    examples: list[Example]
    skipped: list[Skipped]
    unused: int = 0
    """Captioned images that were not looked at, since there were enough before them."""


def select(config: Prepare) -> Selection:
    """The examples of a stage, in a fixed order, those of the prior last; a relative folder is taken from the project.

    Errors: SourceError where there is none.
    """
    own = _of(config.source, config.count, config.seed)
    if not config.prior:
        return own
    prior = _of(config.prior, config.prior_count, config.seed)
    examples = own.examples + [replace(each, id=f"prior/{each.id}", prior=True) for each in prior.examples]
    skipped = own.skipped + [Skipped(f"prior/{each.id}", each.reason) for each in prior.skipped]
    return Selection(examples, skipped, own.unused + prior.unused)


def _of(source: str, count: int, seed: int) -> Selection:
    if source == PICTUREBOOK:
        return Selection(list(picturebook(count, seed)), [])
    if source == UNSEEN:
        return Selection(list(unseen(count, seed)), [])
    return from_folder(ROOT / Path(source).expanduser(), count)


def picturebook(count: int, seed: int) -> Iterator[Example]:
    """`count` training scenes with captions. Example i depends on `seed` and i alone."""
    for i in range(count):
        rng = Random(f"example {seed} {i}")
        scene = draw_scene(rng, held_out=False)
        caption = draw_caption(scene, rng, complete=COMPLETE).text
        load = partial(_draw, scene, f"picture {seed} {i}")
        yield Example(f"picturebook-{seed}-{i:05d}", caption, sha256(load().tobytes()).hexdigest(), load)


def unseen(count: int, seed: int) -> Iterator[Example]:
    """`count` pictures, with captions, of a kind of scene that the embedded base was not trained on."""
    for i in range(count):
        picture, caption = draw_unseen(Random(f"unseen {seed} {i}"))
        yield Example(f"unseen-{seed}-{i:05d}", caption, sha256(picture.tobytes()).hexdigest(), picture.copy)


def _draw(scene: Scene, seed: str) -> Image.Image:
    return draw(scene, Random(seed))


def from_folder(folder: Path, count: int = 0) -> Selection:
    """The first `count` usable examples of a folder and its subfolders, by path; 0 takes all.

    Hidden files and folders are left alone. Links to files are followed: a hub's download is made of them.
    Errors: SourceError where the folder is missing, has no image, no caption, or nothing that can be used.
    """
    if not folder.is_dir():
        raise SourceError(f"source {str(folder)!r}: there is no such folder; give `{PICTUREBOOK}` or a folder of images")
    files = _files(folder)
    images = [name for name in files if name.lower().endswith(ENDINGS)]
    captions = read_captions(folder, files, images)
    if not images and not captions.texts:
        raise SourceError(f"source {str(folder)!r}: the folder has no images; images end in {', '.join(ENDINGS)}")
    if {each.reason for each in captions.skipped} == {"image without caption"} and not captions.texts:
        raise SourceError(
            f"source {str(folder)!r}: none of its {len(images)} images has a caption; write a .txt file of the same name "
            f"beside each, or a {METADATA} with file_name and text"
        )
    selection = _usable(folder, captions.texts, captions.skipped, count)
    if not selection.examples:
        reasons = Counter(each.reason for each in selection.skipped)
        counts = ", ".join(f"{number} × {reason}" for reason, number in reasons.most_common())
        raise SourceError(f"source {str(folder)!r}: nothing in it can be used ({counts}); mend it or give another folder")
    return selection


def _files(folder: Path) -> list[str]:
    """Paths of a folder's files, relative to it, with `/`, in order."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(parent, name) for name in names if not name.startswith(".")]
        found += [path.relative_to(folder).as_posix() for path in paths if path.is_file()]
    return sorted(found)


def _usable(folder: Path, texts: dict[str, str], skipped: list[Skipped], count: int) -> Selection:
    """The captioned images that decode, until there are `count` of them."""
    examples, skipped, names = [], list(skipped), sorted(texts)
    for done, name in enumerate(names):
        if len(examples) == (count or -1):
            return Selection(examples, skipped, unused=len(names) - done)
        try:
            data = (folder / name).read_bytes()
            to_rgb(decode(data))
        except OSError:
            skipped.append(Skipped(valid_text(name), "image file cannot be read"))
        except ImageError as fault:
            skipped.append(Skipped(valid_text(name), str(fault)))
        else:
            digest = sha256(data).hexdigest()
            examples.append(Example(valid_text(name), texts[name], digest, partial(_load, folder / name, digest)))
    return Selection(examples, skipped)


def _load(path: Path, digest: str) -> Image.Image:
    """The image of a file that was looked at before. Errors: SourceError where it is not what it was then."""
    data = path.read_bytes() if path.is_file() else b""
    if sha256(data).hexdigest() != digest:
        raise SourceError(f"{str(path)!r} was changed or removed while it was being prepared; run this stage again")
    return decode(data)
