"""The clinical inputs that the tests' models take."""

from __future__ import annotations

from lungstage.appliance.contract.spec import Covariate

AGE, SEX = Covariate("age"), Covariate("sex", ("F", "M"))
HISTOLOGY = Covariate("histology", ("adenocarcinoma", "squamous cell carcinoma", "large cell carcinoma"))
