"""A training observed while it runs.

metrics     metrics.jsonl and the progress bar
host_copy   a GPU's numbers on the CPU, for which nobody waits
trackers    the same metrics, and pictures, for TensorBoard, W&B, trackio and MLflow
tracked_values   what they get, as flat numbers
usage       usage.jsonl, and the live loss curve
hardware    CPU, memory and GPUs at a moment
phases      the phase of each process, and since when
loss_plot   the loss curve
usage_plot  the phases and the usage as a figure
plots       loss.png and usage.png
progress_strip   validation.png
"""
