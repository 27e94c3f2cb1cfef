"""Stage one study from Python and print the answer. Research use only.

    python examples/stage_a_study.py [STUDY] [REPORTS]

STUDY is a folder with one CT series and its RTSTRUCT or SEG. Without it, the script makes a phantom study.
"""

import sys
from pathlib import Path

import lungstage
from lungstage.appliance.staging import phantom

study = Path(sys.argv[1] if len(sys.argv) > 1 else "phantom")
reports = Path(sys.argv[2] if len(sys.argv) > 2 else "reports")
if not study.exists():
    phantom.write_study(study)

bundle = lungstage.load_bundle("lung1-stage")  # load it once, then use it for many studies
try:
    staged = lungstage.stage(study, bundle, out=reports)
except (lungstage.Refused, lungstage.Held) as error:
    sys.exit(f"{error.reason.code}: {error.reason.message}")

print(f"Research use only. Predicted: {staged.answer}, probability {staged.probability:.2f}")
for name, logit in sorted(staged.contributions.items(), key=lambda item: -abs(item[1]))[:3]:
    print(f"  {name}: {logit:+.2f} logit")
for warning in staged.warnings:
    print(f"  Warning: {warning}")
print(f"Report: {staged.sr}")
