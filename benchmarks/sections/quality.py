"""Trainings of guidance and of own pictures, by what they came to."""

from .figures import machine_line, percent

FIDELITY = """
## The loss of guidance, its timesteps and its states

`make bench-fidelity` trains adapters in different ways, for the same time, on the same examples,
with two seeds each. *Distance ratio*: the mean squared distance of latents to guided's over that of
unguided, with its 95 % interval over captions; in parentheses each seed's. *Nearer*: the share of
pictures that came nearer to guided's.

"""


def fidelity_text(result: dict) -> str:
    """Return fidelity to guided by the way of training."""
    lines = [
        f"{result['captions']} held-out captions, {result['seconds']:.0f} s of training each.\n",
        "| training | steps | distance ratio | nearer | guidance recovered |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        seeds = ", ".join(f"{value:.3f}" for value in row["by_seed"])
        distance, gain = fidelity_cells(row)
        lines.append(f"| {name} | {row['steps']} | {distance} ({seeds}) | {gain} |")
    return "\n".join([*lines, f"\n{machine_line(result, of_pictures=True)}\n"])


BASE_PRECISION = """
## Frozen weights in fewer bits

`make bench-base-precision` trains adapters on the embedded base as it is and packed
(`train.base_precision`), the same steps on the same examples, and samples all of them on the base
as it is. *Distance ratio*: the mean squared distance of latents to guided's over that of unguided,
with its 95 % interval over captions. *Weights*: the frozen ones in a training's memory.

"""


def base_precision_text(result: dict) -> str:
    """Return fidelity to guided and memory by the storage of the frozen weights."""
    lines = [
        f"{result['captions']} held-out captions, {result['steps']} steps each.\n",
        "| base_precision | weights | distance ratio | nearer | guidance recovered |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        lines.append(f"| {name} | {row['base_mib']:.1f} MiB | {' | '.join(fidelity_cells(row))} |")
    return "\n".join([*lines, f"\n{machine_line(result, of_pictures=True)}\n"])


def fidelity_cells(row: dict) -> tuple[str, str]:
    """Return the distance ratio with its interval, and the cells of what came nearer."""
    ratio = row["distance_ratio"]
    distance = f"{ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"
    return distance, f"{100 * row['nearer']:.0f} % | {percent(row['recovered'], 'value')}"


RANKS = """
## Rank and layers

`make bench-ranks` trains adapters of every rank on every preset of layers, all on the same kept
answers. Guidance recovered, with its 95 % interval; the mean loss of the last quarter of the steps;
the size of the file. The recovered shares of so few captions differ by chance; the losses, which
are of the same batches, do not: more layers at a low rank learn more, for the same size, than few
layers at a high one.

"""


def ranks_table(result: dict) -> str:
    """Return a table with a row for each preset and a column for each rank."""
    ranks = list(next(iter(result["recovered"].values())))
    lines = [
        "| layers | " + " | ".join(f"rank {rank}" for rank in ranks) + " |",
        "|---" * (len(ranks) + 1) + "|",
    ]
    for targets, row in result["recovered"].items():
        cells = [
            f"{percent(cell, 'value')}<br>{cell['loss']:.4f}, {cell['bytes'] / 2**20:.1f} MiB"
            for cell in row.values()
        ]
        lines.append(f"| {targets} | " + " | ".join(cells) + " |")
    rates = ", ".join(f"{name} {100 * rate:.0f} %" for name, rate in result["rates"].items())
    lines += [
        "",
        f"{result['steps']} steps; {result['captions']} captions, of which first: {rates}; "
        f"{machine_line(result, of_pictures=True)}\n",
    ]
    return "\n".join(lines)


OWN_IMAGES = """
## Pictures of one's own

`make bench-own-images`: the recipe own-images on twenty icons of animals, in a style that no
training of the base saw.

"""


def own_images_text(result: dict) -> str:
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in result["shares"].items())
    return (
        f"{result['pictures']} pictures, {result['steps']} steps, {result['seconds'] / 60:.0f} "
        f"minutes in all. Of {result['sampled']} sampled pictures, nearest to other animals of "
        "that style, by the features of the embedded CLIP, and not to a kind of scene that the "
        f"base knows: {shares}. The VAE gives the pictures back with {result['psnr_db']:.1f} dB "
        f"PSNR, the worst with {result['worst_psnr_db']:.1f} dB. "
        f"{machine_line(result, of_pictures=True)}\n"
    )
