"""``lungstage-export``: pack a training run into a bundle; recalibrate, sign and verify bundles."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from lungstage.appliance.config.extras import needing
from lungstage.appliance.contract.errors import ExitStatus, LungstageError, Refused, Unavailable
from lungstage.appliance.model.bundle import load_bundle
from lungstage.appliance.model.signature import read_public_keys
from lungstage.training.run import Run, differences

CONTOUR_RECORD: Final = "contour.json"  # of training.contour.run, which imports torch

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Pack a training run into a bundle. Recalibrate, sign and verify bundles. Research use only.",
    pretty_exceptions_enable=False,
)


@app.command()
def build(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="Folder that lungstage-train fit wrote.", exists=True)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Bundle to write, e.g. models/NAME. Replaces an existing bundle."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="TOML file of the study (docs/training.md). Options take precedence over it.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse a model that is not shown to beat chance and the best simple model."),
    ] = False,
) -> None:
    """Pack RUN into a bundle. The bundle is verified before it is put in place."""
    # onnx and torch take seconds to import; --help and verify do not need them.
    from lungstage.export import bundle, worth
    from lungstage.training.configuration import load_configuration

    study = load_configuration(config, {"study.run": run, "study.bundle": output})
    run, output = study.path("run", "RUN"), study.path("bundle", "-o FOLDER")
    _require_name(output)
    if (run / CONTOUR_RECORD).is_file():
        _build_contour(run, output)
        return
    if not all((run / name).is_file() for name in ("model.npz", "run.json")):
        raise typer.BadParameter(f"{run} is no run: model.npz or run.json is missing. lungstage-train fit writes them.")
    read = Run.load(run)
    if read.evaluation is not None and read.own_evaluation is None:
        notes = [*differences(read.record, read.evaluation), "The card does not include this evaluation."]
        typer.echo(f"Warning: {' '.join(notes)}", err=True)
    parity = bundle.build(read, output, strict=strict)
    typer.echo(f"{output}: written and verified; {parity}")
    if told := worth.sentence(worth.worth_of(read)):
        typer.echo(f"Warning: {told} The card, the page and the reports show this warning.", err=True)


def _build_contour(run: Path, output: Path) -> None:
    from lungstage.export.contour import build_contour
    from lungstage.training.contour.run import ContourRun

    difference = build_contour(ContourRun.load(run), output)
    typer.echo(f"{output}: written and verified; it draws contours. Largest difference of a logit: {difference:.1e}")


@app.command()
def recalibrate(
    folder: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle.", exists=True)],
    validation: Annotated[
        Path,
        typer.Argument(metavar="VALIDATION", help="validation.json of this bundle on your cohort.", exists=True),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FOLDER", help="Bundle to write. Replaces an existing bundle."),
    ],
) -> None:
    """Recalibrate BUNDLE on the cohort of VALIDATION, and write it as a new version."""
    from lungstage.export import recalibration

    _require_name(output)
    made = recalibration.recalibrate(folder, validation, output.resolve())
    slope, intercept = (f"{one.value:.2f} ({one.low:.2f} to {one.high:.2f})" for one in (made.slope, made.intercept))
    typer.echo(
        f"{output}: written and verified; slope {slope}, intercept {intercept}, from {made.rows} patients of "
        f"{made.cohort}. Validate it on other patients before you use it."
    )


def _require_name(output: Path) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", output.resolve().name):
        raise typer.BadParameter(
            "the folder's name is the bundle's name. Use only letters, digits, '.', '_' and '-', and start with a "
            "letter or digit."
        )


ENVIRONMENT_VARIABLE = "LUNGSTAGE_PASSPHRASE"


def _passphrase(*, confirm: bool = False) -> str:
    given = os.environ.get(ENVIRONMENT_VARIABLE)
    return (
        typer.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True) if given is None else given
    )


@app.command()
def keygen(
    name: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="NAME", help="Name of the key files: NAME.key (keep it secret) and NAME.pub."
        ),
    ],
    passphrase: Annotated[
        bool,
        typer.Option(
            "--passphrase", help=f"Encrypt the private key. Asks for a passphrase, or reads {ENVIRONMENT_VARIABLE}."
        ),
    ] = False,
) -> None:
    """Create a pair of Ed25519 keys for signing bundles."""
    from lungstage.export import signing

    key = signing.generate(name, _passphrase(confirm=True) if passphrase else None)
    typer.echo(f"{name}.key, {name}.pub: created; fingerprint {key.fingerprint}")


@app.command()
def sign(
    folder: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle.")],
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="Private key from keygen.")],
) -> None:
    """Verify BUNDLE and sign it. Replaces an existing signature."""
    from lungstage.export import signing

    signature = signing.sign(folder, signing.read_private_key(key, _passphrase))
    typer.echo(f"{folder}: signed by {signature.key}")


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle.")],
    trusted_key: Annotated[
        list[Path] | None,
        typer.Option(
            "--trusted-key", metavar="FILE", help="Accepted public key. Refuses other signatures. Can be repeated."
        ),
    ] = None,
    prevalence: Annotated[
        float | None,
        typer.Option(
            "--prevalence", metavar="P", help="Also show its answers and decision curve at this prevalence (0 to 1)."
        ),
    ] = None,
) -> None:
    """Verify the hashes and the signature of BUNDLE, and run its self-test."""
    from lungstage.appliance.model.answering import AnswerRule
    from lungstage.appliance.report import evidence
    from lungstage.appliance.report.translation import Translator
    from lungstage.export.answers import answers, decision_curve

    if prevalence is not None and not 0 < prevalence < 1:
        raise typer.BadParameter("it must lie between 0 and 1, for example 0.3", param_hint="--prevalence")
    bundle = load_bundle(folder, trusted=read_public_keys(trusted_key or ()))
    typer.echo(f"{bundle.manifest.name} {bundle.manifest.version}: valid, self-test passed; digest {bundle.digest}")
    typer.echo(f"Signed by {bundle.signer}." if bundle.signer else "Not signed.")
    worth = bundle.manifest.worth
    if told := evidence.worth(None if worth is None else worth.worth, Translator("en")):
        typer.echo(f"Warning: {told}")
    if prevalence is not None:
        rule = AnswerRule.of(bundle.manifest, prevalence)
        each = (AnswerRule.of(bundle.manifest, None), rule)
        typer.echo(f"\n{answers(each, bundle.manifest.endpoint.endpoint)}\n\n{decision_curve(rule)}")


def main() -> NoReturn:
    """Run ``lungstage-export``: exit status 0 done, 1 internal error, 2 usage, 3 refused, 4 unavailable."""
    try:
        with needing("training"):
            app()
    except Refused as error:
        sys.stderr.write(f"refused: {error.reason.code}: {error.reason.message}\n")
        sys.exit(ExitStatus.REFUSED)
    except (Unavailable, OSError) as error:
        sys.stderr.write(f"unavailable: {error}\n")
        sys.exit(ExitStatus.UNAVAILABLE)
    except LungstageError as error:  # an error of the configuration or a key, or a library that is not installed
        sys.stderr.write(f"usage: {error}\n")
        sys.exit(ExitStatus.USAGE)
    sys.exit(0)
