"""The `onepass` command.

app       the application, its errors, output and exit status
run       run, prepare, train, compare, resume, verify
sweep     sweep
inspect   list, show, diff, recipes, index, lab
doctor    doctor
clean     rm, gc, export, cache
share     push, space
project   init

Each module adds its commands to the application, so importing one imports all.
"""

from . import clean, doctor, inspect, project, run, share, sweep
from .app import main

__all__ = ["clean", "doctor", "inspect", "main", "project", "run", "share", "sweep"]
