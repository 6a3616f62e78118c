"""`edgepkd demo`: the shipped model on the shipped clip."""

from __future__ import annotations

import typer


def demo() -> None:
    """Answer on the clip that ships with edgepkd, and say whether it is right."""
    from edgepkd import pipeline
    from edgepkd.cli.show_run import show
    from edgepkd.text import shown as shown_text

    facts = pipeline.demo_facts()
    shown = show(pipeline.demo(), source=str(facts.clip), json_to=None, quiet=False)
    typer.echo(shown_text(f"Expected: {facts.expected_label}."))
    typer.echo(shown_text(f"Clip: {facts.attribution}"))
    right = shown.labels.count(facts.expected_label)
    # Most clips must say so; one of them could be right by luck.
    verdict = "right" if 2 * right > len(shown.labels) else "NOT right"
    typer.echo(f"The answer is {verdict} ({right} of {len(shown.labels)} clips).")
    raise typer.Exit(0 if verdict == "right" else 1)
