"""The `onepass` command. Each module adds its commands to the app; importing one imports all."""

from . import clean, inspect, run
from .app import main

__all__ = ["clean", "inspect", "main", "run"]
