"""Shares, times and machines in words."""

from nbs_lib.reference.results import older_base


def percent(share: dict | None, key: str = "rate") -> str:
    if share is None:
        return "–"
    interval = (
        "" if share["low"] is None else f" [{100 * share['low']:.0f}, {100 * share['high']:.0f}]"
    )
    return f"{100 * share[key]:.0f} %{interval}"


def minutes(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def machine_line(result: dict, of_pictures: bool = False) -> str:
    """Return the machine, torch and date of a result.

    of_pictures: of the embedded base, whose later training would give others; this is said
    """
    machine = result["machine"]
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    hardware = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {gpus}"
    older = older_base(result) if of_pictures else ""
    return f"{hardware}; torch {result['versions']['torch']}; {result['date']}{older}."
