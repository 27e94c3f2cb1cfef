"""The commands that answer one study and end: ``lungstage stage``, ``lungstage measure`` and ``lungstage demo``."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lungstage.appliance.cli.options import JsonOption, RequiredBundleOption, TrustedOption
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

PathsArgument = Annotated[list[Path], typer.Argument(metavar="PATH...", help="DICOM files, or folders of them.")]
RoiOption = Annotated[str | None, typer.Option("--roi", help="ROI to measure, instead of by rule.", show_default=False)]
GeometryOption = Annotated[
    bool,
    typer.Option("--match-by-geometry", help="Go by the ROI's position, and not by the images that it names."),
]
SaveOption = Annotated[
    Path | None,
    typer.Option(
        "--save-volume",
        help="Folder for volume and mask as NIfTI; PyRadiomics repeats the features from them, but for oblique slices.",
        show_default=False,
    ),
]
EngineOption = Annotated[
    Literal["compiled", "reference"], typer.Option(help="What computes the features; reference: PyRadiomics itself.")
]
FormatOption = Annotated[
    str,
    typer.Option(
        "--format", metavar="sr,pdf,sc,html", help="Documents to write: the report, and a page as PDF, picture or HTML."
    ),
]
LanguageOption = Annotated[Literal["en", "de", "fr"], typer.Option(help="Language of the page.")]
DescriptorsOption = Annotated[
    bool,
    typer.Option("--descriptors/--no-descriptors", help="Say what a radiologist would say of the tumour, too."),
]
GridOption = Annotated[
    Literal["pyradiomics", "ibsi"],
    typer.Option(help="Process images as PyRadiomics does, or as IBSI's manual has it (docs/ibsi.md)."),
]


def stage(
    paths: PathsArgument,
    bundle: RequiredBundleOption,
    out: Annotated[Path, typer.Option(help="Folder for the structured report.")],
    roi: RoiOption = None,
    match_by_geometry: GeometryOption = False,
    save_volume: SaveOption = None,
    prevalence: Annotated[
        float | None,
        typer.Option(help="Share of the positive class at this site, to answer at.", show_default=False),
    ] = None,
    covariates: Annotated[
        Path | None, typer.Option(help="CSV of covariates, which outranks the header.", show_default=False)
    ] = None,
    formats: FormatOption = "sr,pdf",
    language: LanguageOption = "en",
    refusal_page: Annotated[
        bool, typer.Option("--refusal-page", help="Write a page that says why, where the study is refused.")
    ] = False,
    perturbations: Annotated[
        int, typer.Option(min=0, max=MOST_PERTURBATIONS, help="Perturbed versions to try the answer out on; 0: none.")
    ] = PERTURBATIONS,
    contour_mm: Annotated[
        float,
        typer.Option(min=0.1, max=MOST_CONTOUR_MM, help="How far contours of different hands lie apart (SD, mm)."),
    ] = CONTOUR_MM,
    answer_not_robust: Annotated[
        Literal["warn", "indeterminate"], typer.Option(help="What becomes of an answer that the versions do not share.")
    ] = "warn",
    describes: DescriptorsOption = True,
    engine: EngineOption = "compiled",
    trusted_key: TrustedOption = None,
    batch: Annotated[
        bool, typer.Option("--batch", help="Stage every study there is, and write results.csv beside the reports.")
    ] = False,
    files: Annotated[
        bool, typer.Option("--files", help="With --batch: name the files that could not be read.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; with --batch a line of JSON for each study.")
    ] = False,
) -> None:
    """Stage one study, or with --batch each of many: a structured report and a page to read. Research use only."""
    from lungstage.appliance.model.bundle import load_bundle
    from lungstage.appliance.model.signature import read_public_keys
    from lungstage.appliance.staging.covariates import Site
    from lungstage.appliance.staging.one_shot import Options, stage_paths

    if prevalence is not None and not 0 < prevalence < 1:
        raise typer.BadParameter("a prevalence lies strictly between 0 and 1, such as 0.3", param_hint="--prevalence")
    try:
        documents = DocumentOptions(formats_of(formats.split(",")), language)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--format") from error

    if files and not batch:
        raise typer.BadParameter("only with --batch", param_hint="--files")

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
        typer.Argument(metavar="PATH...", help="DICOM files, or folders of them; or IMAGE.nii.gz MASK.nii.gz."),
    ],
    spec: Annotated[str, typer.Option(help="PyRadiomics parameter file, or 'all': the 106 at default settings.")],
    roi: RoiOption = None,
    label: Annotated[
        int | None, typer.Option(help="Of a NIfTI mask: value of the region's voxels. [default: 1]", show_default=False)
    ] = None,
    match_by_geometry: GeometryOption = False,
    save_volume: SaveOption = None,
    describes: DescriptorsOption = True,
    engine: EngineOption = "compiled",
    grid: GridOption = "pyradiomics",
    as_json: JsonOption = False,
) -> None:
    """Measure the features of one study, or of a NIfTI image and its mask, without a model."""
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
        Path | None, typer.Option("--out", help="Folder for inbox, outbox and state; by default a temporary one.")
    ] = None,
    page: Annotated[bool, typer.Option("--page", help="Then serve the worklist to a browser, until Ctrl-C.")] = False,
) -> None:
    """Send a generated phantom study through the real daemon, and read its report back."""
    import tempfile

    from lungstage.appliance.daemon.demo import run_demo

    place = folder or Path(tempfile.mkdtemp(prefix="lungstage-demo-"))
    result = run_demo(bundle, place)
    typer.echo(f"report came {result.seconds:.1f} s after the last file, and was read back: {result.title}")
    typer.echo(in_words(result.outcome))
    folders = {name: place / name for name in ("inbox", "outbox", "state")}
    if not page:
        options = " ".join(f"--{name} {folder}" for name, folder in folders.items())
        command = "lungstage" if shutil.which("lungstage") else sys.argv[0]  # not on the path in a checkout
        typer.echo(f"To see it in a browser (pip install 'lungstage[page]'): {command} page {options}")
        return
    from lungstage.appliance.cli.page import serve_site
    from lungstage.appliance.page.settings import load_site

    serve_site(
        load_site(None, bind="127.0.0.1:0", state=folders["state"], inbox=folders["inbox"], outbox=folders["outbox"]),
        new_token=True,
    )


def _answer(run_once: Callable[[], dict[str, Any]], as_json: bool, undone: str) -> None:
    """Print what a one-shot command found; where it was held or refused, say what was not done, and exit 3."""
    from lungstage.appliance.staging.one_shot import OptionsError
    from lungstage.appliance.staging.outcome import outcome

    try:
        answer = run_once()
    except OptionsError as error:
        raise typer.BadParameter(str(error)) from error
    except Refused as error:  # the bundle, the spec or a table; the data's own refusals are outcomes already
        answer = outcome(status="refused", reason=error.reason)
    typer.echo(json.dumps(answer, allow_nan=False) if as_json else in_words(answer))
    if answer["reason"] is not None:
        if not as_json:
            again = " Once that is there, run the command again." if answer["status"] == "held" else ""
            typer.echo(f"{undone}{again} Research use only.")
        raise typer.Exit(ExitStatus.REFUSED)


def in_words(answer: dict[str, Any]) -> str:
    """Put an outcome into lines for a person."""
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
    if answer["domain"] is None:  # measured, and no model asked
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
    """Say where a person finds what was written."""
    names = {"pdf": "page (PDF)", "sc": "page (picture)", "html": "page (HTML)", "sr": "report (SR)"}
    documents = answer["documents"] or ({"sr": answer["sr"]} if answer["sr"] else {})
    return [f"{name}: {documents[kind]}" for kind, name in names.items() if kind in documents]
