"""The pages of docs/reference/, written from the code by `python -m nbs_lib.reference`.

pages       the pages by file name, written and compared with those on disk
parameters  every parameter of every notebook
recipes     every recipe: its parameters, and what it came to
results     the figures of benchmarks/results in words
figures     tables of figures in README.md and the other pages of docs/
command     the `onepass` command with all its arguments and options
api         the public functions and classes
formats     the files of a run and of the cache
source      docstrings and signatures, read without importing a module
markdown    tables, blocks, and docstrings as Markdown
"""
