"""The `onepass` command: a thin layer over `pipeline`."""

import sys
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def onepass():
    """Guidance distillation of Stable Diffusion into a LoRA, from notebooks."""


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe of notebooks/recipes, or the path of a YAML file.")],
    name: Annotated[str, typer.Option(help="Name of the run, a folder in outputs/; the recipe's name if left out.")] = "",
    p: Annotated[list[str], typer.Option("-p", help="A parameter, STAGE.NAME=VALUE, e.g. -p train.steps=50.")] = [],  # noqa: B006
):
    """Run a recipe: prepare, train, compare. Run again, it goes on where it stopped."""
    from .config import ParameterError
    from .pipeline import StageError, headline, run_recipe

    try:
        finished = run_recipe(recipe, name or None, p)
    except ParameterError as wrong:
        typer.echo(f"onepass: {wrong}", err=True)
        raise typer.Exit(2) from None
    except (StageError, RuntimeError) as failure:
        typer.echo(f"onepass: {failure}", err=True)
        raise typer.Exit(1) from None
    typer.echo(headline(finished))


def main():
    app()


if __name__ == "__main__":
    sys.exit(main())
