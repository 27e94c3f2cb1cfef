"""``lungstage-export``: pack a training run into a bundle, and verify one."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from appliance.bundle import load_bundle
from appliance.errors import ExitStatus, LungstageError, Refused, Unavailable
from training.run import Run, differences

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)


@app.command()
def build(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="Folder that lungstage-train fit wrote.", exists=True)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Bundle to write, e.g. models/NAME; replaced if there."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="TOML file of the study, for what is not given.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
) -> None:
    """Pack RUN into one bundle, and prove it before it takes its place."""
    # onnx and torch take seconds to import; --help and verify go without.
    from export import bundle
    from training.configuration import load_configuration

    study = load_configuration(config, {"study.run": run, "study.bundle": output})
    run, output = study.path("run", "RUN"), study.path("bundle", "-o FOLDER")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", output.resolve().name):
        raise typer.BadParameter("the folder's name becomes the bundle's: letters, digits, '.', '_' and '-' only")
    if not all((run / name).is_file() for name in ("model.npz", "run.json")):
        raise typer.BadParameter(f"{run} holds no run: model.npz and run.json are needed")
    read = Run.load(run)
    if read.evaluation is not None and read.own_evaluation is None:
        typer.echo(" ".join([*differences(read.record, read.evaluation), "The card goes without it."]), err=True)
    parity = bundle.build(read, output)
    typer.echo(f"{output}: written and verified; {parity}")


@app.command()
def verify(folder: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle.")]) -> None:
    """Check every byte of BUNDLE against its hashes and recompute its golden case."""
    bundle = load_bundle(folder)
    typer.echo(f"{bundle.manifest.name} {bundle.manifest.version}: sound, self-test passed; digest {bundle.digest}")


def main() -> NoReturn:
    """Run ``lungstage-export``: exit status 0 done, 1 our defect, 2 usage, 3 refused, 4 unavailable."""
    try:
        app()
    except Refused as error:
        sys.stderr.write(f"refused: {error.reason.code}: {error.reason.message}\n")
        sys.exit(ExitStatus.REFUSED)
    except (Unavailable, OSError) as error:
        sys.stderr.write(f"unavailable: {error}\n")
        sys.exit(ExitStatus.UNAVAILABLE)
    except LungstageError as error:  # the configuration
        sys.stderr.write(f"usage: {error}\n")
        sys.exit(ExitStatus.USAGE)
    sys.exit(0)
