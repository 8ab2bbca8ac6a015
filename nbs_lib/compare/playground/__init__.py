"""The widgets of `playground.ipynb`: type a prompt, compare the contenders, vote blind."""
