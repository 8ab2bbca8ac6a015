"""`python -m nbs_lib`: the `onepass` command; see `commands`."""

from .commands import main

if __name__ == "__main__":
    main()
