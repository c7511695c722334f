"""How the commands end when something is wrong."""

import typer

FINDINGS = 3
"""Exit status of a command that went through and found something; 1 is a program that broke."""


def refusal(error: Exception) -> typer.Exit:
    """Say what is wrong on standard error; the exit status is 2."""
    typer.echo(f"error: {error}", err=True)
    return typer.Exit(2)
