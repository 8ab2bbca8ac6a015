"""Shares, times and machines in words."""


def percent(share: dict | None, key: str = "rate") -> str:
    if share is None:
        return "–"
    interval = (
        "" if share["low"] is None else f" [{100 * share['low']:.0f}, {100 * share['high']:.0f}]"
    )
    return f"{100 * share[key]:.0f} %{interval}"


def minutes(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def machine_line(result: dict) -> str:
    """Return the machine, torch and date of a result."""
    machine = result["machine"]
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    hardware = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {gpus}"
    return f"{hardware}; torch {result['versions']['torch']}; {result['date']}."
