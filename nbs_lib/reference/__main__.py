"""The command `python -m nbs_lib.reference`: docs/reference/, the tables of figures in the other
pages, the notebooks' `parameters` cells, and colab.ipynb. Prints the pages that changed.
"""

from ..config.__main__ import main as write_cells
from . import colab
from .pages import write_pages


def main():
    write_cells()
    # after the cells, of which it is written
    for path in [*colab.write(), *write_pages()]:
        print(path)


if __name__ == "__main__":
    main()
