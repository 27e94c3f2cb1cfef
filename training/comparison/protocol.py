"""What a comparison does, fixed before it: a TOML file, whose hash stands in every result that follows it.

The hash covers GL-RFE's settings too, with the constants behind them, so that nothing can be turned after a look.
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
    """The protocol cannot be used as it is given, or the folder of results is another's."""


class Protocol(BaseModel):
    """Everything that a comparison's figures depend on beside the tables and the software."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Literal["hardened", "paper", "quick"] = Field(default="hardened", description="GL-RFE's settings.")
    selectors: tuple[str, ...] = Field(default=tuple(LABELS), description="Which are compared, GL-RFE among them.")
    classifiers: tuple[ClassifierName, ...] = Field(
        default=("network", "logistic"), min_length=1, description="What is fitted to the selected features."
    )
    features: int = Field(default=15, ge=1, le=100, description="How many are selected.")
    folds: int = Field(default=5, ge=3, le=20, description="Outer folds of a repeat.")
    repeats: int = Field(default=1, ge=1, le=100, description="Repeats of the outer folds.")
    halves: int = Field(default=1, ge=1, le=50, description="Pairs of disjoint halves a repeat, for the stability.")
    seed: int = Field(default=0, ge=0, description="The one seed that everything random derives from.")
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="Level of tests and intervals.")
    comparators: tuple[str, ...] = Field(
        default=("anova", "mrmr", "mutual_information", "lasso", "rfe_lr", "random"),
        description="Whom GL-RFE is tested against; Holm's correction is over these and the classifiers.",
    )

    @field_validator("selectors", "comparators")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in names if name not in LABELS]:
            raise ValueError(f"there is no selector {', '.join(unknown)}; known are {', '.join(LABELS)}")
        if len({*names}) < len(names):
            raise ValueError("a selector is named twice")
        return names

    @model_validator(mode="after")
    def _together(self) -> Self:
        if GL_RFE not in self.selectors or len(self.selectors) < 3:
            raise ValueError(f"selectors: {GL_RFE} and two others at least are needed")
        if len({*self.classifiers}) < len(self.classifiers):
            raise ValueError("a classifier is named twice")
        strangers = [name for name in self.comparators if name not in self.selectors or name == GL_RFE]
        if strangers and "comparators" in self.model_fields_set:
            raise ValueError(f"comparators: {', '.join(strangers)} is {GL_RFE} itself or not among the selectors")
        return self

    @property
    def tested(self) -> tuple[str, ...]:
        """Comparators that are among the selectors."""
        return tuple(name for name in self.comparators if name in self.selectors)

    @property
    def procedure(self) -> Procedure:
        """GL-RFE and the networks, down to as many features as are compared."""
        base = PRESETS[self.preset]
        return replace(base, seed=self.seed, selection=replace(base.selection, features=self.features))

    def digest(self) -> str:
        """Hex SHA-256 of this, of GL-RFE's settings and the constants behind them."""
        said = {"protocol": self.model_dump(mode="json"), "procedure": self.procedure.digest()}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        """Return what is written down before a run, and again in its results."""
        return {**self.model_dump(mode="json"), "procedure_sha256": self.procedure.digest(), "sha256": self.digest()}


def read_protocol(file: Path | None) -> Protocol:
    """Read a protocol; without a file it is the default one.

    Raises
    ------
    ProtocolError
        The file cannot be read, or is no protocol; every problem is named by its key.
    """
    if file is None:
        return Protocol()
    try:
        return Protocol.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise ProtocolError(f"The protocol {file} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"The protocol {file} is not TOML: {error}.") from error
    except ValidationError as error:
        faults = "; ".join(
            ": ".join(filter(None, (".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, "))))
            for one in error.errors()
        )
        raise ProtocolError(f"{file.name}: {faults}.") from error
