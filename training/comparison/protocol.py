"""Protocol of a comparison, fixed before it starts: a TOML file, whose hash is part of every result.

The hash also covers GL-RFE's settings and constants. So a change of any setting after a look at results is visible.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lungstage.appliance.contract.errors import LungstageError
from lungstage.training.procedure import PRESETS, Procedure
from lungstage.training.selection.registry import GL_RFE, LABELS

ClassifierName = Literal["network", "logistic"]


class ProtocolError(LungstageError):
    """The protocol cannot be used as given, or the folder of results belongs to another protocol."""


class Protocol(BaseModel):
    """Everything except tables and software that the figures of a comparison depend on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Literal["hardened", "paper", "quick"] = Field(default="hardened", description="GL-RFE's settings.")
    selectors: tuple[str, ...] = Field(default=tuple(LABELS), description="Selectors to compare, including GL-RFE.")
    classifiers: tuple[ClassifierName, ...] = Field(
        default=("network", "logistic"), min_length=1, description="Classifiers fitted to the selected features."
    )
    features: int = Field(default=15, ge=1, le=100, description="Number of features to select.")
    folds: int = Field(default=5, ge=3, le=20, description="Outer folds of a repeat.")
    repeats: int = Field(default=1, ge=1, le=100, description="Repeats of the outer folds.")
    halves: int = Field(default=1, ge=1, le=50, description="Pairs of disjoint halves per repeat, for the stability.")
    seed: int = Field(default=0, ge=0, description="Seed of everything random.")
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="Level of tests and intervals.")
    comparators: tuple[str, ...] = Field(
        default=("anova", "mrmr", "mutual_information", "lasso", "rfe_lr", "random"),
        description="Selectors that GL-RFE is tested against. Holm's correction covers them and the classifiers.",
    )

    @field_validator("selectors", "comparators")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in names if name not in LABELS]:
            raise ValueError(f"there is no selector {', '.join(unknown)}; known are {', '.join(LABELS)}")
        if len({*names}) < len(names):
            raise ValueError("a selector is given twice")
        return names

    @model_validator(mode="after")
    def _together(self) -> Self:
        if GL_RFE not in self.selectors or len(self.selectors) < 3:
            raise ValueError(f"selectors: {GL_RFE} and at least two others are needed")
        if len({*self.classifiers}) < len(self.classifiers):
            raise ValueError("a classifier is given twice")
        strangers = [name for name in self.comparators if name not in self.selectors or name == GL_RFE]
        if strangers and "comparators" in self.model_fields_set:
            raise ValueError(f"comparators: {', '.join(strangers)} is {GL_RFE} itself or not among the selectors")
        return self

    @property
    def tested(self) -> tuple[str, ...]:
        """The comparators that are also selectors of this protocol."""
        return tuple(name for name in self.comparators if name in self.selectors)

    @property
    def procedure(self) -> Procedure:
        """Settings of GL-RFE and the networks, with the protocol's seed and number of features."""
        base = PRESETS[self.preset]
        return replace(base, seed=self.seed, selection=replace(base.selection, features=self.features))

    def digest(self) -> str:
        """Hex SHA-256 of the protocol, of GL-RFE's settings and of their constants."""
        said = {"protocol": self.model_dump(mode="json"), "procedure": self.procedure.digest()}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        """Return the record that is written before a run, and again in its results."""
        return {**self.model_dump(mode="json"), "procedure_sha256": self.procedure.digest(), "sha256": self.digest()}


def read_protocol(file: Path | None) -> Protocol:
    """Read a protocol; without a file the default one is used.

    Raises
    ------
    ProtocolError
        The file cannot be read, or is not a protocol; the message names every problem by its key.
    """
    if file is None:
        return Protocol()
    try:
        return Protocol.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise ProtocolError(
            f"The protocol {file} cannot be read: {error.strerror}. Check the path and its permissions."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(
            f"The protocol {file} is not TOML: {error}. docs/selection.md lists the keys of a protocol."
        ) from error
    except ValidationError as error:
        faults = "; ".join(
            ": ".join(filter(None, (".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, "))))
            for one in error.errors()
        )
        raise ProtocolError(f"{file.name}: {faults}.") from error
