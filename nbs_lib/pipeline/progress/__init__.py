"""The progress of a stage, read from its run's files and shown.

state     the progress at a moment, in words
reader    it read from metrics.jsonl, usage.jsonl and log.txt
bars      tqdm's bars in log.txt, read into words
display   a live display in a terminal, elsewhere plain lines
"""

from .state import Progress, Say, format_duration, print_progress

__all__ = ["Progress", "Say", "format_duration", "print_progress"]
