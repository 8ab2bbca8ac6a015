"""Preparation: its rate against a bare VAE loop, a second run, its memory, reading, and its scale.

    python benchmarks/prepare.py [EXAMPLES [PART …]]     # or: make bench-prepare

EXAMPLES is the largest number of examples, 100,000 by default. PART is rates, again (a second run
over unchanged images), memory (with reading for training) or scale; without any, all but scale are
measured. The benchmark writes the images itself, each with one of a few captions. With 100,000
examples, the figures go to benchmarks/results/prepare.json; parts that are not measured keep their
last figures.

    python benchmarks/prepare.py 1000000 scale

scale draws so many examples of the picture-book by code, half of them with a caption of their own,
and a tenth of them before. Its figures are those of that number, which they hold.
"""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import page
import psutil
import torch
from PIL import Image

from nbs_lib.config import Prepare, Train
from nbs_lib.config.validation import as_parameters
from nbs_lib.files import ROOT
from nbs_lib.models import find_base
from nbs_lib.prepare import prepare
from nbs_lib.prepare.encode.encoder import Encoder
from nbs_lib.prepare.encode.worker_process import keep_freed_memory
from nbs_lib.run.environment import environment
from nbs_lib.train.data.dataset import Examples

FOLDER = ROOT / "outputs" / "bench-prepare"
MOST = 100_000
AGAIN = 20_000  # of the second run over unchanged images
PROCESSES, BATCH, ROUNDS, TRIES = 2, 64, 2, 3
SIZES = {64: 12_000, 128: 4000}  # pixels a side, and how many images are encoded for the rate
PREPARE = """
import json, sys, time
from nbs_lib.config import Prepare
from nbs_lib.prepare import prepare
start = time.perf_counter()
done = prepare(Prepare(**json.loads(sys.argv[1])))
examples, encoded = done.cache.meta["examples"], done.built.encoded
print(json.dumps({"seconds": done.seconds, "examples": examples, "encoded": encoded}))
"""


def main(most: int, parts: list[str]):
    shutil.rmtree(FOLDER, ignore_errors=True)
    figures = {}
    if "rates" in parts:
        figures["rates"] = {str(side): rate(side, count) for side, count in SIZES.items()}
    if "again" in parts:
        figures["again"] = again(min(AGAIN, most // 2))
    if "memory" in parts:
        figures["memory"] = memory(write_images(FOLDER / "images", most, 64), most)
        figures["reading"] = reading()
    if "scale" in parts:
        figures["scale"] = scale(most)
    print(json.dumps(figures, indent=1))
    # the other parts are compared from one version to the next, so their number is fixed
    if most == MOST or parts == ["scale"]:
        last = page.RESULTS / "prepare.json"
        before = json.loads(last.read_text()) if last.exists() else {}
        page.save(
            "prepare",
            before
            | {
                "date": datetime.now(UTC).date().isoformat(),
                **environment(),
                **figures,
            },
        )
    shutil.rmtree(FOLDER)


def write_images(folder: Path, count: int, side: int) -> Path:
    """Write JPEGs of coarse random colours, all different, and a table of captions.

    A subfolder holds a thousand images.
    """
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    with (folder / "metadata.jsonl").open("w") as table:
        for i in range(count):
            if i % 1000 == 0:
                (folder / f"{i // 1000:03d}").mkdir()
                coarse = generator.integers(0, 256, (1000, 8, 8, 3), dtype=np.uint8)
            name = f"{i // 1000:03d}/{i:06d}.jpg"
            image = Image.fromarray(coarse[i % 1000]).resize(
                (side + side // 4, side), Image.Resampling.BILINEAR
            )
            image.save(folder / name, quality=90)
            table.write(
                json.dumps({"file_name": name, "text": f"a picture of kind {i % 50}"}) + "\n"
            )
    return folder


def bare(number: int, side: int, count: int, keep_freed: bool, seconds) -> None:
    """Time one process's share of VAE-encode batches on pictures that are in memory.

    keep_freed: keep freed memory, as the encoding processes of a preparation do.
    """
    torch.set_num_threads(1)
    if keep_freed:
        keep_freed_memory()
    generator = np.random.default_rng(number)
    pictures = [
        Image.fromarray(pixels)
        for pixels in generator.integers(0, 256, (BATCH, side, side, 3), dtype=np.uint8)
    ]
    encoder = Encoder(find_base("embedded"), torch.device("cpu"), BATCH)
    encoder.latents(pictures)
    start = time.perf_counter()
    for _ in range(count // BATCH):
        encoder.latents(pictures)
    seconds[number] = (time.perf_counter() - start) / (count // BATCH * BATCH)


def bare_rate(side: int, count: int, keep_freed: bool) -> float:
    """Return the pictures per second of all processes together."""
    context, seconds = multiprocessing.get_context("fork"), multiprocessing.Array("d", PROCESSES)
    members = [
        context.Process(target=bare, args=(i, side, count // PROCESSES, keep_freed, seconds))
        for i in range(PROCESSES)
    ]
    for member in members:
        member.start()
    for member in members:
        member.join()
    return sum(1 / picture_seconds for picture_seconds in seconds)


def rate(side: int, count: int) -> dict[str, float]:
    """Measure the bare loop, the same with freed memory kept, and a whole preparation, in turn.

    The preparation reads, decodes, filters, crops, encodes and writes its images.
    """
    source = write_images(FOLDER / f"images {side}", count, side)
    measured = {"bare": [], "bare_kept": [], "prepare": []}
    for i in range(ROUNDS):
        measured["bare"].append(bare_rate(side, count, keep_freed=False))
        measured["bare_kept"].append(bare_rate(side, count, keep_freed=True))
        folder = str(FOLDER / f"rate {side} {i}" / "run")
        config = Prepare(
            folder, source=str(source), max_examples=0, resolution=side, num_processes=PROCESSES
        )
        measured["prepare"].append(count / prepare(config).seconds)
    rates = {name: median(values) for name, values in measured.items()}
    print(side, rates, flush=True)
    shares = {
        "share": rates["prepare"] / rates["bare"],
        "share_of_kept": rates["prepare"] / rates["bare_kept"],
    }
    return rates | shares | {"count": count}


def run(config: Prepare) -> dict:
    """Prepare in a separate process; return its figures and all its processes' peak memory, MiB."""
    command = [sys.executable, "-W", "ignore", "-c", PREPARE, json.dumps(as_parameters(config))]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, memory_of(process.pid))
        time.sleep(0.1)  # the drawing at the end is short and must not be missed
    return json.loads(process.stdout.read().splitlines()[-1]) | {"mib": peak}


def memory_of(pid: int) -> float:
    """Return the MiB of a process and its children, with shared pages counted once."""
    try:
        whole = psutil.Process(pid)
        return (
            sum(
                process.memory_full_info().pss
                for process in (whole, *whole.children(recursive=True))
            )
            / 2**20
        )
    except psutil.Error:
        return 0.0


def again(count: int) -> dict[str, float]:
    """Time a first run over `count` images, a second, and a third after one pixel has changed."""
    source = write_images(FOLDER / "images again", count, 64)
    config = Prepare(
        str(FOLDER / "again" / "run"), source=str(source), max_examples=0, num_processes=PROCESSES
    )
    first, second = run(config), run(config)
    changed = source / "000" / "000007.jpg"
    with Image.open(changed) as image:
        image.putpixel((3, 3), (255, 0, 255))
        image.save(changed, quality=90)
    third = run(config)
    print(first, second, third, flush=True)
    seconds = {
        name: result["seconds"]
        for name, result in (("first", first), ("second", second), ("changed", third))
    }
    return {
        "count": count,
        **seconds,
        "times": first["seconds"] / second["seconds"],
        "changed_encoded": third["encoded"],
    }


def memory(source: Path, most: int) -> dict[str, float]:
    """Return the seconds of a run, and its memory above that of a run of two examples.

    The small run holds the models. The figures are medians, because the peak varies with the number
    of pictures that are in flight at that moment.
    """
    medians = {}
    for count in (2, most // 10, most):
        folder, tries = FOLDER / f"memory {count}", []
        for _ in range(TRIES):
            shutil.rmtree(folder, ignore_errors=True)
            tries.append(
                run(
                    Prepare(
                        str(folder / "run"),
                        source=str(source),
                        max_examples=count,
                        num_processes=PROCESSES,
                    )
                )
            )
        medians[count] = {
            name: median(result[name] for result in tries) for name in ("seconds", "mib")
        }
        print(count, [result["mib"] for result in tries], medians[count], flush=True)
        if count != most // 10:
            shutil.rmtree(folder)
    models = medians[2]["mib"]
    above = {count: result["mib"] - models for count, result in medians.items() if count != 2}
    few, many = above
    return {
        "models_mib": models,
        "above_mib": {str(count): mib for count, mib in above.items()},
        "growth": above[many] / above[few] - 1,
        "seconds": {str(count): medians[count]["seconds"] for count in above},
        "time_ratio": medians[many]["seconds"] / medians[few]["seconds"],
    }


def scale(most: int) -> dict[str, dict]:
    """Return the seconds and the memory, in MiB, of a tenth of the examples and of all."""
    figures = {}
    for count in (most // 10, most):
        folder = FOLDER / f"scale {count}"
        config = Prepare(str(folder / "run"), max_examples=count, num_processes=PROCESSES)
        result = run(config)
        figures[str(count)] = {name: result[name] for name in ("seconds", "mib")}
        print(count, figures[str(count)], flush=True)
        shutil.rmtree(folder)
    return figures


def reading() -> float:
    """Return the latents per second in shuffled batches from a warm cache, in one process."""
    [cache] = (folder for folder in FOLDER.glob("memory */run/cache"))
    examples = Examples(cache, Train(validation_examples=0))
    generator, rates = torch.Generator().manual_seed(0), []
    for _ in range(200):
        places = torch.randint(len(examples.training), (BATCH,), generator=generator)
        start = time.perf_counter()
        latents = examples.clean_latents(places)
        rates.append(len(latents) / (time.perf_counter() - start))
    return median(rates[50:])


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else MOST,
        sys.argv[2:] or ["rates", "again", "memory"],
    )
