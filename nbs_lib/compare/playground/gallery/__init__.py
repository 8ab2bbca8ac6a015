"""The gallery: rows of pictures, each a prompt and a seed, all of them in the run's folder.

gallery   the widget
rows      a row, and its recipe
files     the rows on disk, written and read
infotext  a picture's settings in the form of A1111
"""
