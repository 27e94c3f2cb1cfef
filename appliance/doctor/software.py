"""What computes: the bundle, the site's table, and what decodes pixels."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError

from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import HTJ2KLossless, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from lungstage.appliance.config.settings import Settings
from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.dicom import jpeg_lossless
from lungstage.appliance.doctor.finding import Finding, ok, problem, warning
from lungstage.appliance.model.bundle import load_bundle
from lungstage.appliance.model.signature import KeyFileError, read_public_keys
from lungstage.appliance.report.fonts import SAMPLES, own_face, runs
from lungstage.appliance.staging.covariates import Site

_COMPRESSED = {
    "RLE": RLELossless, "JPEG-LS": JPEGLSLossless, "JPEG 2000": JPEG2000Lossless, "HTJ2K": HTJ2KLossless,
    "JPEG Lossless": JPEGLosslessSV1,
}  # fmt: skip
"""The lossless compressions that archives send CT in; what is not compressed needs no decoder."""


def bundle(settings: Settings) -> Iterator[Finding]:
    """Whether the bundle is whole, is signed as it must be, and proves itself on this machine."""
    try:
        trusted = read_public_keys(settings.trusted_keys)
        proven = load_bundle(settings.bundle, engine=settings.engine, trusted=trusted)
    except Refused as refused:
        remedy = "Copy the bundle anew from where it was published; docs/reason-codes.md explains the code."
        yield problem("bundle", f"{refused} [{refused.reason.code}]", remedy)
    except KeyFileError as error:
        yield problem("bundle", str(error), "Set trusted_keys to files of public keys in PEM.")
    else:
        manifest, signer = proven.manifest, f"signed by {proven.signer}" if proven.signer else "not signed"
        told = f"{manifest.name} {manifest.version} is whole, {signer}, and gives its golden case"
        yield ok("bundle", f"{told} ({proven.digest[:12]}).")


def covariates(settings: Settings) -> Iterator[Finding]:
    """Whether the site's table of covariates can be used."""
    if settings.covariates is None:
        return
    try:
        Site.read(settings.prevalence, settings.covariates)
    except Refused as refused:
        yield problem("covariates", str(refused), "Mend the table; docs/settings.md says what it must look like.")
    except OSError as error:
        told = f"{settings.covariates} cannot be read: {error.strerror}."
        yield problem("covariates", told, "Put the table there, and let the daemon's user read it.")
    else:
        yield ok("covariates", f"{settings.covariates} can be used.")


def fonts(settings: Settings) -> Iterator[Finding]:
    """Whether the page can be drawn, and names in the scripts that only the system's fonts have."""
    if settings.documents.formats == ("sr",):
        return
    try:
        own_face()
    except PackageNotFoundError as error:
        yield problem("fonts", f"The page cannot be drawn: {error}.", "Install lungstage anew, with all it depends on.")
        return
    missing = [script for script, name in SAMPLES.items() if runs(name) is None]
    left_out = ""
    if missing:  # where no patient bears such a name, nothing is amiss
        left_out = (
            f" Those in {', '.join(missing)} are left out, for no font here has them: install one, for instance "
            "Debian's fonts-noto-cjk, where patients bear such names."
        )
    written = ", ".join(["Latin", "Cyrillic", *(script for script in SAMPLES if script not in missing)])
    yield ok("fonts", f"The page can be drawn, with names in {written} letters.{left_out}")


def decoders(_: Settings) -> Iterator[Finding]:
    """Whether compressed pixels can be decoded."""
    jpeg_lossless.register()
    missing = [name for name, uid in _COMPRESSED.items() if not get_decoder(uid).is_available]
    if missing:
        yield warning(
            "decoders", f"There is no decoder for {', '.join(missing)}: slices so compressed are refused.",
            "Have the archive send CT uncompressed, or compressed in another way.",
        )  # fmt: skip
    else:
        yield ok("decoders", f"There are decoders for {', '.join(_COMPRESSED)}.")
