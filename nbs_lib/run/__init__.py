"""One execution and its folder in outputs/.

run              Run: the folder's file names, its record, its lock
record           types of run.json and metrics.jsonl, checked when they are read
stage_recording  a stage's entry in the record, from its start to its end
fingerprint      hashes of everything a stage's result depends on
out_of_date      finished stages whose inputs changed, and the mark on their report
continuation     which training may resume from which checkpoint
locks            one process at a time on a run
environment      versions, git commit, hardware
memory           the memory that a stage plans with, and what is free
disk_space       free bytes and inodes
progress_bar     progress bars on stdout
terminal_text    text without control characters
"""
