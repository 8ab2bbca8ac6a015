"""Processes that work together, last long, or are killed."""

from statistics import median

from .figures import machine_line

MACHINES = """
## Processes, stages, checkpoints

`make bench-machines` trains on kept answers, the sides in turn, medians of all rounds' steps.

"""


def machines_text(result: dict) -> str:
    """Return scaling, the stages' table, checkpoints and memory as text."""
    names = list(result["stages"]["embedded"])
    lines = ["| base | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for base, row in result["stages"].items():
        cells = [f"{cell['seconds']:.3f} s, {cell['peak_mib']:.0f} MiB" for cell in row.values()]
        lines.append(f"| {base} | " + " | ".join(cells) + " |")
    one, saved = result["scaling"], result["checkpoints"]
    lines += [
        "",
        "A step and the peak memory of a process. Two processes on two cores do "
        f"{one['efficiency']:.2f} of twice what one",
        "does on one core, with the same work for each "
        f"({one['two']:.1f} and {one['one']:.1f} examples a second, ZeRO 0).",
        "",
        f"A checkpoint of {saved['mib']:.1f} MiB takes {saved['seconds']:.2f} s: "
        f"at one a minute {100 * saved['share']:.1f} %",
        f"of the time. Watching takes {100 * saved['watch_share']:.2f} % of a core.",
        "",
        machine_line(result) + "\n",
    ]
    return "\n".join(lines)


SOAK = """
## A long training, killed many times

`make bench-soak`: checkpoints every 50 steps, SIGKILL to one rank, to the parent, to all, in turn.

"""


def soak_text(result: dict) -> str:
    """Return the outcome of the long training as text."""
    same = "the same file as" if result["same_adapter"] else "NOT the same file as"
    left = ", ".join(result["left_over"]) or "nothing"
    return (
        f"{result['steps']} steps, killed {result['kills']} times: the adapter is {same} that of a "
        f"training that was never killed; left over: {left}; memory of the uninterrupted one grew "
        f"by {100 * result['memory_growth']:.1f} %. {machine_line(result)}\n"
    )


RUNS = """
## The cost of the layer of runs

`make bench-runs`: a shrunken demo from nothing, its three notebooks by papermill alone in one
process, and by `onepass run`, in turns; then a folder with many runs, listed by commands that are
timed from start to end, the slowest of five.

"""


def runs_text(result: dict) -> str:
    """Return overhead and listing as text."""
    bare, ours = (
        {kind: median(times[kind] for times in result[side]) for kind in result["overhead"]}
        for side in ("bare", "onepass")
    )
    more = result["overhead"]
    lists = "; with ".join(map(list_times, result.get("listed", [result])))
    return (
        f"papermill alone {bare['seconds']:.1f} s, `onepass run` {ours['seconds']:.1f} s, "
        f"medians of {result['rounds']} rounds:\n"
        f"{more['seconds']:.1f} s more, with the record, the log, the pages and the index. "
        "In processor seconds of that\n"
        f"process, without its kernels: {bare['processor']:.1f} and {ours['processor']:.1f}, "
        f"{more['processor']:.1f} s more. With\n"
        f"{lists}. {machine_line(result)}\n"
    )


def list_times(result: dict) -> str:
    """Return the time that the listing of so many runs takes, as text."""
    size = f", a page of {result['index_bytes'] / 1e6:.1f} MB" if "index_bytes" in result else ""
    return (
        f"{result['runs']:,} runs, `onepass list` takes {result['list_seconds']:.2f} s and "
        f"`onepass index` {result['index_seconds']:.2f} s{size}"
    )


KILLS = """
## A run killed at random moments

`make bench-kills`: a shrunken demo is started, killed by SIGKILL at a moment drawn from its whole
time (in turn: the command's process group, every process of the run), and resumed.

"""


def kills_text(result: dict) -> str:
    """Return the number of runs that ended well, and the stages of the kills, as text."""
    stages = [
        next((stage for stage, status in trial["stages"].items() if status == "running"), "")
        for trial in result["trials"]
    ]
    counts = ", ".join(
        f"{stages.count(stage)} in {stage}" for stage in ("prepare", "train", "compare")
    )
    zero = "".join(
        f", {result['moments'] // len(result['zero_stages'])} at ZeRO {stage}"
        for stage in result.get("zero_stages", ())
    )
    return (
        f"Of {result['moments']} moments in {result['seconds']:.0f} s{zero}, "
        f"{counts} and the others between them,\n"
        f"{result['ended_the_same']} ended done, with the same adapter and pictures as without a "
        f"kill. {machine_line(result)}\n"
    )
