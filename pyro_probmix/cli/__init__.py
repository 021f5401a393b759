"""The ``pyro-probmix`` command."""

from __future__ import annotations

from typing import Annotated

from pyro_probmix._version import __version__
from pyro_probmix.cli.extras import missing_extras_named

with missing_extras_named():
    import typer

    from pyro_probmix.cli.compare import compare as _compare
    from pyro_probmix.cli.evaluate import evaluate as _evaluate
    from pyro_probmix.cli.fit import fit as _fit
    from pyro_probmix.cli.predict import predict as _predict
    from pyro_probmix.cli.reproduce import REPRODUCTIONS
    from pyro_probmix.cli.reproduce import reproduce as _reproduce

__all__ = ["REPRODUCTIONS", "app", "main"]

app = typer.Typer(
    name="pyro-probmix",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Notes go to standard error. Exit codes: 0; 2 for what can be mended; 130 if interrupted.",
)


@app.callback(invoke_without_command=True)
def pyro_probmix(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Predictive densities by mixup on statistical manifolds: models of tables, and methods compared."""
    if version:
        typer.echo(f"pyro-probmix {__version__}")
        raise typer.Exit


for _command in (_fit, _predict, _evaluate, _compare, _reproduce):
    app.command()(_command)


def main() -> None:
    """Run the command."""
    with missing_extras_named():
        app()
