"""The room behind the `onepass` command: recipes run as runs, runs looked at, compared, repeated and cleared away.

places    where recipes and runs are, and what a run may be called
recipes   a recipe and the command line -> the checked parameters of the three notebooks
stages    one run: what has changed, what is done anew, what is kept
execute   one notebook through papermill, with its log and its page
progress  what a stage is at, in words
page      an executed notebook as one HTML page
listing   runs as rows of plain values, read from their folders alone
index     outputs/index.html
differ    two runs against one another
sweeps    a recipe with several values of some parameters
verify    a run done again in a fresh folder
tidy      runs and leftovers removed
cluster   job scripts for Slurm and manifests for Kubernetes
doctor    what a machine lacks, and the command that mends it

    from nbs_lib.pipeline import run, sweep
    done = run("demo", {"train.steps": 50}, name="quick")
    best = sweep("demo", {"train.rank": [4, 8, 16]}).best

Nothing here imports torch: `onepass list` answers at once.
"""

from .runner import resume, run
from .sweep.sweep import sweep

__all__ = ["resume", "run", "sweep"]
