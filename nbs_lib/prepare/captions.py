"""The captions of a folder of images, and what is wrong with those that cannot be used.

A caption is a `.txt` file with the stem of its image (`cat.png`, `cat.txt`), or a line of a `metadata.jsonl` at the top
of the folder (`{"file_name": "cat.png", "text": "a cat"}`), as Hugging Face's imagefolder has them. Where an image has
both, the line counts.
"""

import json
import posixpath
from dataclasses import dataclass, field
from pathlib import Path

METADATA = "metadata.jsonl"


class CaptionError(ValueError):
    """A caption that cannot be used. Its text is a short reason, the same for every caption with that fault."""


@dataclass(frozen=True)
class Skipped:
    """An image, a caption or a line that could not be used."""

    id: str
    reason: str


@dataclass
class Captions:
    """Captions of images by path, relative to the folder. settled: images that have a caption or are skipped."""

    texts: dict[str, str] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    settled: set[str] = field(default_factory=set)

    def skip(self, name: str, reason: str):
        self.skipped.append(Skipped(valid_text(name), reason))


def valid_text(text: str) -> str:
    """Text that every file can hold: undecodable bytes of a file name and halves of surrogate pairs become `?`."""
    return text.encode("utf-8", "replace").decode()


def read_captions(folder: Path, files: list[str], images: list[str]) -> Captions:
    """The captions of `images`; both lists are paths relative to the folder, with `/`. Every image is settled."""
    captions = Captions()
    if METADATA in files:
        _read_metadata(folder / METADATA, set(files), captions)
    beside = {_stem(name): name for name in files if name.lower().endswith(".txt")}
    for stem in sorted(beside.keys() - {_stem(name) for name in images}):
        captions.skip(beside[stem], "caption without image")
    for name in images:
        if name in captions.settled:
            continue
        captions.settled.add(name)
        if _stem(name) not in beside:
            captions.skip(name, "image without caption")
            continue
        try:
            captions.texts[name] = _clean((folder / beside[_stem(name)]).read_bytes())
        except OSError:
            captions.skip(name, "caption file cannot be read")
        except CaptionError as fault:
            captions.skip(name, str(fault))
    return captions


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


def _clean(content: str | bytes) -> str:
    """A caption as one line. Errors: CaptionError."""
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
    except UnicodeDecodeError:
        raise CaptionError("caption is not UTF-8 text") from None
    text = " ".join(valid_text(text).split())
    if not text:
        raise CaptionError("caption is empty")
    return text


def _read_metadata(path: Path, files: set[str], captions: Captions):
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            name, text = _parse(line, files)
            if name in captions.settled:
                raise CaptionError("names a file a second time")
        except CaptionError as fault:
            captions.skip(f"{METADATA}, line {number}", str(fault))
            continue
        captions.settled.add(name)
        try:
            captions.texts[name] = _clean(text)
        except CaptionError as fault:
            captions.skip(name, str(fault))


def _parse(line: bytes, files: set[str]) -> tuple[str, str]:
    """Path and text of one line. A path is looked up among the folder's files, so it never reaches the disk.

    Errors: CaptionError for a line that is not such an object, and for a path that is missing or leaves the folder.
    """
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise CaptionError("is not JSON") from None
    name, text = (fields.get("file_name"), fields.get("text")) if isinstance(fields, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(text, str):
        raise CaptionError("lacks file_name or text")
    name = posixpath.normpath(name)
    if name.startswith(("/", "../")) or name == "..":
        raise CaptionError("names a file outside the folder")
    if name not in files:
        raise CaptionError("names a file that is not there")
    return name, text
