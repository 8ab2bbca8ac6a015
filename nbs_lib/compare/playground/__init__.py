"""The widgets of `playground.ipynb`: type a prompt, compare the contenders, vote blind.

app              the page: its parts, and what their buttons do
controls         the control panel
options          the contenders that it offers
hints            what the base cannot make of a prompt
jobs             the pictures of the contenders that the controls name
sampling_thread  the thread that samples
viewer           two pictures against each other
gallery          rows of pictures, on the page and in the run's folder
blind_test       pairs without names, one after the other
votes            votes on them, and their tally
widgets          scripts and styles that the widgets share
"""
