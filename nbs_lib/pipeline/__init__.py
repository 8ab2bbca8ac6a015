"""The `onepass` command's recipes, runs and sweeps.

paths           paths of recipes, notebooks and runs, and the names a run may have
recipes         a recipe and the command line, read into the configs of the three notebooks
runner          one run: stages whose inputs changed are executed, the others are kept
plan            the reasons to execute or keep the stages of a run
notebook        one stage's notebook executed, with its log, page and record of a failure
kernel          one notebook executed by papermill in a kernel
notebook_html   an executed notebook as one HTML page
new_project     the notebooks and recipes of a new project
start_page      the tables of 0_start.ipynb
progress        the progress of a stage, read from its run's files and shown
dry_run         base, source, machine, memory and time of a run, checked before it begins
planned_cache   a cache of zeros, on which a dry run plans the memory
reproduce       a run executed again in a fresh folder and compared
cluster         job scripts for Slurm and manifests for Kubernetes
runs            runs listed, shown, compared and removed
sweep           a recipe with several values of some parameters

    from nbs_lib.pipeline import run, sweep
    result = run("demo", {"train.steps": 50}, name="quick")
    best = sweep("demo", {"train.rank": [4, 8, 16]}).best

Only planned_cache imports torch, and only a dry run imports it: `onepass list` answers at once.
"""

from .runner import resume, run, run_stage
from .sweep.sweep import sweep

__all__ = ["resume", "run", "run_stage", "sweep"]
