"""The command line: Typer only, one file per verb; `main` is the table of contents."""
