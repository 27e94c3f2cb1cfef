"""The commands without a daemon: ``lungstage stage``, ``lungstage measure`` and ``lungstage demo``."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lungstage.appliance.cli.options import ADVANCED, JsonOption, RequiredBundleOption, TrustedOption, out_folder
from lungstage.appliance.contract.documents import DocumentOptions, formats_of
from lungstage.appliance.contract.errors import ExitStatus, Refused
from lungstage.appliance.contract.robustness import (
    CONTOUR_MM,
    MOST_CONTOUR_MM,
    MOST_PERTURBATIONS,
    PERTURBATIONS,
    RobustnessOptions,
)

if TYPE_CHECKING:
    from lungstage.appliance.model.bundle import Bundle
    from lungstage.appliance.staging.one_shot import Options

PathsArgument = Annotated[
    list[Path], typer.Argument(metavar="PATH...", help="DICOM files, or folders with DICOM files.")
]
RoiOption = Annotated[
    str | None,
    typer.Option(
        "--roi",
        metavar="NAME",
        help="Name of the region of interest (ROI) to measure, instead of the rule's choice.",
        show_default=False,
    ),
]
GeometryOption = Annotated[
    bool,
    typer.Option(
        "--match-by-geometry",
        help="Match the region to CT slices by its position, and ignore the images that its file names.",
        rich_help_panel=ADVANCED,
    ),
]
SaveOption = Annotated[
    Path | None,
    typer.Option(
        "--save-volume",
        metavar="DIR",
        help="Folder for volume and mask as NIfTI. PyRadiomics gives the same features from them, except for oblique "
        "slices.",
        show_default=False,
        rich_help_panel=ADVANCED,
    ),
]
EngineOption = Annotated[
    Literal["compiled", "reference"],
    typer.Option(
        metavar="NAME",
        help="Code that computes the features: compiled, or reference (PyRadiomics itself, slower).",
        rich_help_panel=ADVANCED,
    ),
]
FormatOption = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="LIST",
        help="Documents to write, with commas: sr (report, always), and the page as pdf, sc (picture) or html.",
    ),
]
LanguageOption = Annotated[Literal["en", "de", "fr"], typer.Option(help="Language of the page.")]
DescriptorsOption = Annotated[
    bool,
    typer.Option(
        "--descriptors/--no-descriptors",
        help="Also describe the tumour in a radiologist's words.",
        rich_help_panel="Advanced: description of the tumour",
    ),
]
GridOption = Annotated[
    Literal["pyradiomics", "ibsi"],
    typer.Option(
        metavar="NAME",
        help="Resample images as in PyRadiomics (pyradiomics), or as in the IBSI manual (ibsi); see docs/ibsi.md.",
        rich_help_panel=ADVANCED,
    ),
]


def stage(
    paths: PathsArgument,
    bundle: RequiredBundleOption,
    out: Annotated[Path, typer.Option(parser=out_folder, metavar="DIR", help="Folder for the report and the page.")],
    roi: RoiOption = None,
    match_by_geometry: GeometryOption = False,
    save_volume: SaveOption = None,
    prevalence: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the model's positive class among the site's patients, between 0 and 1. "
            "The probability is corrected to it.",
            show_default=False,
        ),
    ] = None,
    covariates: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV with age, sex or histology. It takes precedence over the DICOM header.",
            show_default=False,
        ),
    ] = None,
    formats: FormatOption = "sr,pdf",
    language: LanguageOption = "en",
    refusal_page: Annotated[
        bool,
        typer.Option(
            "--refusal-page", help="If the study is refused, write a page that says why.", rich_help_panel=ADVANCED
        ),
    ] = False,
    perturbations: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            max=MOST_PERTURBATIONS,
            help="Number of perturbed versions that test how robust the answer is; 0: no test.",
            rich_help_panel=ADVANCED,
        ),
    ] = PERTURBATIONS,
    contour_mm: Annotated[
        float,
        typer.Option(
            metavar="MM",
            min=0.1,
            max=MOST_CONTOUR_MM,
            help="Typical distance between contours that different people draw (standard deviation in mm).",
            rich_help_panel=ADVANCED,
        ),
    ] = CONTOUR_MM,
    answer_not_robust: Annotated[
        Literal["warn", "indeterminate"],
        typer.Option(
            metavar="WORD",
            help="What to do if fewer than 90 % of the versions give the same answer: warn, or indeterminate.",
            rich_help_panel=ADVANCED,
        ),
    ] = "warn",
    describes: DescriptorsOption = True,
    engine: EngineOption = "compiled",
    trusted_key: TrustedOption = None,
    batch: Annotated[
        bool,
        typer.Option("--batch", help="Answer every study that is found, and write results.csv beside the reports."),
    ] = False,
    files: Annotated[
        bool, typer.Option("--files", help="With --batch: list the files that could not be read.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; with --batch one line of JSON for each study.")
    ] = False,
) -> None:
    """Answer one study, or many with --batch, and write a report and a page. Research use only.

    Exit status 3 if a study is refused or held.
    The message then says why, and what to do.
    """
    from lungstage.appliance.model.bundle import load_bundle
    from lungstage.appliance.model.signature import read_public_keys
    from lungstage.appliance.staging.covariates import Site
    from lungstage.appliance.staging.one_shot import Options, stage_paths

    if prevalence is not None and not 0 < prevalence < 1:
        raise typer.BadParameter(
            "a prevalence must be more than 0 and less than 1, for example 0.3", param_hint="--prevalence"
        )
    try:
        documents = DocumentOptions(formats_of(formats.split(",")), language)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--format") from error

    if files and not batch:
        raise typer.BadParameter("use it only with --batch", param_hint="--files")

    def prepared() -> tuple[Bundle, Options]:
        options = Options(
            roi,
            match_by_geometry,
            save_volume,
            Site.read(prevalence, covariates),
            documents,
            refusal_page,
            robustness=RobustnessOptions(perturbations, contour_mm, answer_not_robust),
            describes=describes,
        )
        return load_bundle(bundle, engine=engine, trusted=read_public_keys(trusted_key or ())), options

    def run_once() -> dict[str, Any]:
        verified, options = prepared()
        return stage_paths(paths, verified, out, options)

    if not batch:
        _answer(run_once, as_json, "No report was written.")
        return
    from lungstage.appliance.cli.batch import run_batch

    verified, options = prepared()
    status = run_batch(paths, verified, out, options, as_json=as_json, files=files)
    if status is not ExitStatus.DONE:
        raise typer.Exit(status)


def measure(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="DICOM files or folders; or IMAGE.nii.gz MASK.nii.gz."),
    ],
    spec: Annotated[
        str,
        typer.Option(
            metavar="FILE|all", help="PyRadiomics parameter file; or all: the 106 features at default settings."
        ),
    ],
    roi: RoiOption = None,
    label: Annotated[
        int | None,
        typer.Option(metavar="N", help="Value of the region's voxels in a NIfTI mask.", show_default="1"),
    ] = None,
    match_by_geometry: GeometryOption = False,
    save_volume: SaveOption = None,
    describes: DescriptorsOption = True,
    engine: EngineOption = "compiled",
    grid: GridOption = "pyradiomics",
    as_json: JsonOption = False,
) -> None:
    """Measure the radiomics features of one study, or of a NIfTI image and mask, without a model."""
    from lungstage.appliance.model.roi_rule import ROI_RULE
    from lungstage.appliance.radiomics import parameters
    from lungstage.appliance.staging.one_shot import Options, measure_paths

    options = Options(roi, match_by_geometry, save_volume, label=label, describes=describes)

    def run_once() -> dict[str, Any]:
        return measure_paths(paths, ROI_RULE, replace(parameters.read(spec, grid), engine=engine), options)

    _answer(run_once, as_json, "Nothing was measured.")


def demo(
    bundle: RequiredBundleOption = Path("lung1-stage"),
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            parser=out_folder,
            metavar="DIR",
            help="Folder for inbox, outbox and state; by default a temporary one.",
        ),
    ] = None,
    page: Annotated[bool, typer.Option("--page", help="Then show the worklist in a browser, until Ctrl-C.")] = False,
) -> None:
    """Try lungstage: send a generated phantom study through the daemon, and show the answer."""
    import tempfile

    from lungstage.appliance.daemon.demo import run_demo

    place = folder or Path(tempfile.mkdtemp(prefix="lungstage-demo-"))
    result = run_demo(bundle, place)
    typer.echo(f"report written {result.seconds:.1f} s after the last file, and read back: {result.title}")
    typer.echo(in_words(result.outcome))
    folders = {name: place / name for name in ("inbox", "outbox", "state")}
    if not page:
        options = " ".join(f"--{name} {folder}" for name, folder in folders.items())
        command = "lungstage" if shutil.which("lungstage") else sys.argv[0]  # a checkout has it not on the path
        typer.echo(f"To see it in a browser (pip install 'lungstage[page]'): {command} page {options}")
        return
    from lungstage.appliance.cli.page import serve_site
    from lungstage.appliance.page.settings import load_site

    serve_site(
        load_site(None, bind="127.0.0.1:0", state=folders["state"], inbox=folders["inbox"], outbox=folders["outbox"]),
        new_token=True,
    )


def _answer(run_once: Callable[[], dict[str, Any]], as_json: bool, undone: str) -> None:
    """Print the outcome of a one-shot command. If it was held or refused, say what was not done, and exit with 3."""
    from lungstage.appliance.staging.one_shot import OptionsError
    from lungstage.appliance.staging.outcome import outcome

    try:
        answer = run_once()
    except OptionsError as error:
        raise typer.BadParameter(str(error)) from error
    except Refused as error:  # of the bundle, the spec or a table; a refusal of the data is an outcome already
        answer = outcome(status="refused", reason=error.reason)
    typer.echo(json.dumps(answer, allow_nan=False) if as_json else in_words(answer))
    if answer["reason"] is not None:
        if not as_json:
            again = " When that has been received, run the command again." if answer["status"] == "held" else ""
            typer.echo(f"{undone}{again} Research use only.")
        raise typer.Exit(ExitStatus.REFUSED)


def in_words(answer: dict[str, Any]) -> str:
    """Write an outcome in lines for a person."""
    from lungstage.appliance.config.text import printable

    return "\n".join(map(printable, _lines_of(answer)))


def _lines_of(answer: dict[str, Any]) -> list[str]:
    from lungstage.appliance.cli.answers import (
        chance_in_words,
        descriptors_in_words,
        positive_of,
        robustness_in_words,
        warnings_of,
        worth_in_words,
    )

    lines = [f"warning: {warning}" for warning in warnings_of(answer)]
    if answer["reason"] is not None:
        why = f"{answer['status']}: {answer['reason']['message']} [{answer['reason']['code']}]"
        return [*lines, why, *_documents_of(answer)]
    roi = answer["roi"]
    lines.append(f"region: {roi['name']}, {roi['voxels']} voxels, {roi['volume_mm3'] / 1000:.2f} ml")
    described = [line for line in (descriptors_in_words(answer),) if line]
    if answer["domain"] is None:  # measured without a model
        return [*lines, *described, *(f"{name}: {value}" for name, value in answer["features"].items())]
    endpoint = answer["endpoint"]
    if endpoint is None:
        lines.append(f"stage: {answer['stage']} (research use only)")
        lines.append(f"probability of advanced stage: {100 * answer['probability_advanced']:.1f} %")
    else:
        lines.append(f"{endpoint['name']}: {endpoint['answer']} (research use only)")
        lines.append(f"probability of {positive_of(endpoint)}: {100 * endpoint['probability']:.1f} %")
    lines += [line for line in (chance_in_words(answer), robustness_in_words(answer), worth_in_words(answer)) if line]
    strongest = sorted(answer["contributions"].items(), key=lambda item: -abs(item[1]))[:5]
    lines.append("strongest contributions (logit): " + ", ".join(f"{name} {value:+.3f}" for name, value in strongest))
    return [*lines, *described, *_documents_of(answer)]


def _documents_of(answer: dict[str, Any]) -> list[str]:
    """List the paths of the documents that were written."""
    names = {"pdf": "page (PDF)", "sc": "page (picture)", "html": "page (HTML)", "sr": "report (SR)"}
    documents = answer["documents"] or ({"sr": answer["sr"]} if answer["sr"] else {})
    return [f"{name}: {documents[kind]}" for kind, name in names.items() if kind in documents]
