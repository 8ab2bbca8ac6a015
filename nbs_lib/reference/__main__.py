"""The command `python -m nbs_lib.reference`: docs/reference/, the tables of figures in the other
pages, and the notebooks' `parameters` cells. Prints the pages that changed.
"""

from ..config.__main__ import main as write_cells
from .pages import write_pages


def main():
    write_cells()
    for path in write_pages():
        print(path)


if __name__ == "__main__":
    main()
