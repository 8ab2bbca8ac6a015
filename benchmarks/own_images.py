"""Fine-tuning on twenty icons of one theme, as docs/your-own-20-pictures.md does it.

    python benchmarks/own_images.py     # or: make bench-own-images

The icons are animals of OpenMoji, a style that no training of the base saw, on white, with their
names as captions; they come from the npm packages of docs/making-the-base.md. The recipe own-images
is run on them from nothing. A sampled picture shows the theme if its features of the embedded CLIP
are nearer to the mean of other animals of that style than to the mean of each kind of scene that
the base knows. The figures go to benchmarks/results/own-images.json.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import page
from main_job import run_from_nothing
from PIL import Image
from unseen import shares

from nbs_lib.config import MakeBase
from nbs_lib.files import ROOT
from nbs_lib.picturebook.training.pictures.icons import UNSEEN_STYLE, Icon, IconPackages
from nbs_lib.picturebook.training.pictures.mixture import on_white
from nbs_lib.run.environment import environment

ANIMALS = 3  # the annotations' group of animals and plants; animals come first
COUNT = 20
JUDGES = 40  # other animals, whose mean is the theme
SEEDS = list(range(8))
CAPTION = "An icon of a {}"


def themed_icons(packages: IconPackages) -> tuple[list[Icon], list[Icon]]:
    """Return the icons that are trained on, and others of the same theme."""
    names = [entry["label"] for entry in packages.annotations() if entry["group"] == ANIMALS][
        : COUNT + JUDGES
    ]
    icons = [icon for icon in packages.icons((UNSEEN_STYLE,)) if icon.name in names]
    # every third is trained on, so that both have all kinds of animals
    trained = icons[::3][:COUNT]
    return trained, [icon for icon in icons if icon not in trained]


def write_pictures(icons: list[Icon], folder: Path):
    """Write icons as a folder of pictures with captions."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, icon in enumerate(icons):
        Image.fromarray(on_white(icon)).save(folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text(CAPTION.format(icon.name))


def main():
    """Run the recipe on the icons, and write what it came to."""
    packages = IconPackages(ROOT / MakeBase().packages)
    packages.check()
    trained, others = themed_icons(packages)
    folder = ROOT / "outputs" / "bench-own-images-pictures"
    write_pictures(trained, folder)
    prompts = [CAPTION.format(icon.name) for icon in trained[:10]]
    changed = [
        f"prepare.source={folder}",
        f"compare.prompts={json.dumps(prompts)}",
        f"compare.seeds={SEEDS}",
    ]
    run, seconds = run_from_nothing("own-images", "bench-own-images", changed)
    record = json.loads((run / "run.json").read_text())
    results = json.loads((run / "compare/results.json").read_text())
    theme = np.stack([on_white(icon) for icon in others])
    metadata = json.loads((run / "cache/cache.json").read_text())
    ratios = list(metadata["reconstruction"].values())
    result = {
        **environment(),
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(seconds, 1),
        "pictures": len(trained),
        "sampled": len(prompts) * len(SEEDS),
        "steps": record["stages"]["train"]["parameters"]["steps"],
        "shares": shares(run / "compare", results["pictures"], "icon", theme),
        "psnr_db": round(float(np.mean(ratios)), 1),
        "worst_psnr_db": min(ratios),
    }
    page.save("own-images", result)


if __name__ == "__main__":
    main()
