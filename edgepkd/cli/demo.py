"""`edgepkd demo`: the shipped model on the shipped clip."""

from __future__ import annotations

import typer

from edgepkd.cli import options


def demo(
    order: options.Order = None,
    threshold: options.Threshold = None,
    max_exit: options.MaxExit = None,
    static: options.Static = False,
    threads: options.Threads = None,
    backend: options.Backend = "auto",
    trust_engines: options.TrustEngines = False,
    json: options.Json = None,
    save: options.Save = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Try edgepkd on the clip that it ships with.

    Shows the answer for each part of the clip, and whether it is right; exit code 1 if it is not.
    """
    from edgepkd.cli import output
    from edgepkd.cli.show_run import show
    from edgepkd.pipeline import demo as verb
    from edgepkd.pipeline.run import RunConfig
    from edgepkd.runtime.model import DEMO_BUNDLE
    from edgepkd.text import shown as shown_text

    facts = verb.demo_facts()
    config = RunConfig(
        str(facts.clip), order=order, threshold=threshold, max_exit=max_exit, static=static,
        threads=threads, backend=backend, trust_engines=trust_engines, save=save,
        force=force)
    place = output.json_target(json, force=force, reads=[facts.clip, DEMO_BUNDLE],
                               writes=[save] if save else [])
    shown = show(verb.demo(config), source=[str(facts.clip)], json_to=place, quiet=quiet)
    if save is not None and not quiet:
        output.note(f"saved {save}")
    right = shown.labels.count(facts.expected_label)
    # Most clips must say so; one of them could be right by luck.
    verdict = "right" if 2 * right > len(shown.labels) else "NOT right"
    on_stdout = json != "-"
    if not quiet:
        typer.echo(shown_text(f"Expected: {facts.expected_label}."), err=not on_stdout)
        typer.echo(shown_text(f"Clip: {facts.attribution}"), err=not on_stdout)
    if on_stdout or not quiet:
        typer.echo(f"The answer is {verdict} ({right} of {len(shown.labels)} clips).",
                   err=not on_stdout)
    raise typer.Exit(0 if verdict == "right" else 1)
