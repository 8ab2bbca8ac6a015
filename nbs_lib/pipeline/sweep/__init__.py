"""A recipe executed with several values of some parameters.

sweep    the runs of a sweep planned, executed and summarized
values   the swept values, read from the command line or from Python
jobs     the runs executed as commands, several at a time
report   the plot and the page of a sweep
"""
