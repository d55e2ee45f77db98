"""`sam2-stream doctor`: what is wrong with this machine or a configuration, and the command that mends it.

Owns: how findings are printed, and the exit code. Runs in the main thread. Never: looks at anything itself.
"""

from __future__ import annotations

from typing import Annotated

import typer

from stream.config import Config, ConfigError, PromptFlags, config_from_flags, load_config

commands = typer.Typer()

Source = Annotated[
    str | None,
    typer.Argument(
        metavar="[CONFIG.toml|SOURCE]",
        help="A configuration, or one camera's address; without it, the machine alone.",
        show_default=False,
    ),
]


@commands.command()
def doctor(
    source: Source = None,
    seconds: Annotated[float, typer.Option(help="How long to look at each camera.", min=0.5, max=600)] = 8.0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Look at GPU, driver, weights, ports, keys, clock and cameras; say what is wrong and how to mend it.

    Exit code 1 when something is broken.
    """
    import msgspec

    from stream.doctor import Verdict, examine
    from stream.doctor.finding import Finding, broken, ok

    def show(finding: Finding) -> None:
        typer.echo(msgspec.json.encode(finding).decode() if json else "\n".join(finding.lines()))

    config, file, num_broken = Config(cameras=(), allow_cpu=True), "", 0
    try:
        if source is not None and source.endswith(".toml"):
            config, file = load_config(source), source
            show(ok("configuration", f"{source} is right"))
        elif source is not None:
            config = config_from_flags(source, PromptFlags(), options={"allow_cpu": True})
    except ConfigError as error:
        show(broken("configuration", str(error)))
        num_broken += 1
    for finding in examine(config, file=file, limit_s=seconds):
        num_broken += finding.verdict is Verdict.BROKEN
        show(finding)
    raise typer.Exit(1 if num_broken else 0)
