"""`python -m stlib.cli`: the command where no script is installed."""

from stlib.cli import app

app()
