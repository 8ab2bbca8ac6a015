"""The widgets of `playground.ipynb`: type a prompt, compare the contenders, vote blind.

app              the page: its parts, and what their buttons do
controls         the control panel, and the contenders that it offers
jobs             the pictures of the contenders that the controls name
sampling_thread  the thread that samples
viewer           two pictures against each other
gallery          rows of pictures, saved and copied as recipes
blind_test       pairs without names, votes and their tally
widgets          scripts and styles that the widgets share
"""
