"""`python -m nbs_lib`: the `onepass` command; see `commands`."""

from .cli import main

if __name__ == "__main__":
    main()
