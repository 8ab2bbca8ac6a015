"""The `onepass` command as `python -m nbs_lib`."""

from .cli import main

if __name__ == "__main__":
    main()
