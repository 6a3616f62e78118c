"""`edgepkd doctor`: what this machine has and what to install next."""

from __future__ import annotations

from edgepkd.cli import options


def doctor(
    json: options.JsonLine = None,
    force: options.Force = False,
) -> None:
    """Show what this machine has and what is missing.

    Lists versions, backends that work, GPU or Jetson, and what to install next.
    """
    from dataclasses import asdict

    from edgepkd.cli import output
    from edgepkd.pipeline.doctor import describe

    place = output.json_target(json, force=force)
    machine = describe()
    with output.JsonLines(place) as lines:
        lines.write("machine", asdict(machine))
    if json == "-":
        return
    console = output.stdout()
    output.print_facts(console, [
        ("edgepkd", machine.edgepkd),
        ("python", f"{machine.python} on {machine.platform}"),
        ("cpu", f"{machine.cpu}, {machine.num_cores} cores"),
        ("gpu", "; ".join(machine.gpus) or "none found by nvidia-smi"),
        ("jetson", machine.jetson or "no"),
        *((f"backend {name}", devices) for name, devices in machine.backends.items()),
        ("kernels", machine.kernels),
        ("engines", machine.engines),
    ], whole=["kernels"])
    rows = [(name, version or "not installed",
             f"edgepkd[{machine.extras[name]}]" if name in machine.extras else "core")
            for name, version in machine.packages.items()]
    console.print(output.table(("package", "version", "comes with"), rows))
    for step in machine.next_steps:
        console.print(f"next: {step}")
