"""Stage many studies one by one, for ``lungstage stage --batch``: sort the files by study, then stage each study."""

from __future__ import annotations

import os
import secrets
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lungstage.appliance.config.logs import defect
from lungstage.appliance.contract.errors import LungstageError, Reason, ReasonCode, Refused
from lungstage.appliance.dicom.files import looks_like_dicom, read_headers
from lungstage.appliance.dicom.header import Header, ImageHeader, RoiHeader
from lungstage.appliance.model.bundle import Bundle
from lungstage.appliance.staging.one_shot import Options, files_in, stage_paths
from lungstage.appliance.staging.outcome import Outcome, outcome


@dataclass(frozen=True, slots=True)
class Studies:
    """The studies found in some paths.

    Attributes
    ----------
    files
        Files by Study Instance UID, in order of appearance. An RTSTRUCT or SEG with another Study Instance UID is
        included if it names the study's images.
    unreadable
        DICOM files that cannot be read, with the reason.
    ignored
        Number of files that are not DICOM.
    """

    files: Mapping[str, tuple[Path, ...]]
    unreadable: tuple[tuple[Path, str], ...]
    ignored: int


class _Index:
    """Index of files by study. Headers are not kept, because those of many studies would fill the memory."""

    def __init__(self) -> None:
        self.paths: dict[str, dict[Path, None]] = defaultdict(dict)
        self._with_images: set[str] = set()
        self._study_of: dict[str, str] = {}  # of series and instances
        self._rois: list[tuple[Path, str, frozenset[str]]] = []

    def add(self, header: Header) -> None:
        study = header.study_instance_uid
        self.paths[study][header.path] = None
        if isinstance(header, ImageHeader):
            self._with_images.add(study)
            self._study_of[header.series_instance_uid] = self._study_of[header.sop_instance_uid] = study
        else:
            self._rois.append((header.path, study, _named(header)))

    def files(self) -> dict[str, tuple[Path, ...]]:
        found = {study: dict(paths) for study, paths in self.paths.items()}
        for path, own, named in self._rois:
            studies = {self._study_of[uid] for uid in named if uid in self._study_of} | (named & self._with_images)
            for study in studies - {own}:
                found[study][path] = None
            if studies and own not in self._with_images:
                found[own].pop(path, None)
        return {study: tuple(paths) for study, paths in found.items() if paths}


def _named(roi: RoiHeader) -> frozenset[str]:
    listed = {uid for series, instances in roi.listed for uid in (series, *instances)}
    return frozenset({*listed, *roi.image_references, *roi.referenced_studies})


def find_studies(paths: Sequence[Path]) -> Studies:
    """Sort the files in `paths` by study, folders included.

    Raises
    ------
    Unavailable
        A given path does not exist.
    OSError
        A folder cannot be read.
    """
    index, key, ignored = _Index(), secrets.token_bytes(32), 0
    unreadable: list[tuple[Path, str]] = []
    for path in files_in(paths):
        try:
            for header in read_headers(path, hash_pixels=False, key=key):
                index.add(header)
        except Refused as refused:
            if path.is_file() and looks_like_dicom(path):
                unreadable.append((path, refused.reason.message))
            else:
                ignored += 1
        except OSError as error:
            unreadable.append((path, f"{error.strerror or type(error).__name__}."))
    return Studies(index.files(), tuple(unreadable), ignored)


def stage_each(found: Studies, bundle: Bundle, out: Path | None, options: Options) -> Iterator[tuple[str, Outcome]]:
    """Stage one study after the other; an error in one study becomes its outcome, and the next study follows.

    Parameters
    ----------
    found
        Of :func:`find_studies`. A damaged file is counted for each study that has files in its folder.
    bundle, out, options
        As for :func:`staging.one_shot.stage_paths`; volumes are saved in a folder for each study.

    Yields
    ------
    tuple of str and Outcome
        Study Instance UID, and its outcome.

    Raises
    ------
    Unavailable, OSError
        `out` cannot be written to.
    """
    beside: dict[Path, list[Path]] = defaultdict(list)
    for path, _ in found.unreadable:
        if os.access(path, os.R_OK):  # a damaged file may be one that a study needs
            beside[path.parent].append(path)
    for study, files in found.files.items():
        damaged = [path for folder in dict.fromkeys(path.parent for path in files) for path in beside[folder]]
        of_study = options
        if options.save_volume is not None:
            of_study = replace(options, save_volume=options.save_volume / study)
        try:
            yield study, stage_paths([*files, *damaged], bundle, out, of_study)
        except (LungstageError, OSError):
            raise
        except Exception as error:  # an internal error in one study must not stop the other studies
            told = defect(error)
            sentence = (
                f"Internal error: {told['error']} at {told['frames']}. Please report this line to the maintainers of "
                "lungstage."
            )
            yield study, outcome(status="refused", reason=Reason(ReasonCode.INTERNAL_ERROR, sentence))
