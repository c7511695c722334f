"""How the commands end when something is wrong."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

FINDINGS = 3
"""Exit status of a command that went through and found something; 1 is a program that broke."""


@contextmanager
def refusals() -> Iterator[None]:
    """Let a command end with status 2, and a line on standard error, where something cannot be used."""
    try:
        yield
    except (typer.Exit, BrokenPipeError):
        raise
    except (ValueError, OSError, RuntimeError, ImportError, FloatingPointError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


@contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Let SIGTERM leave the block as Ctrl-C does, so that its `finally` keeps what was computed."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
