"""Read the measurements of a report (TID 1500) with highdicom, without lungstage. Research use only.

    python examples/read_a_report.py REPORT

REPORT is a file SR-….dcm, such as examples/stage_a_study.py writes.
"""

import sys

import highdicom as hd

report = hd.sr.srread(sys.argv[1])
print(f"{report.SeriesDescription}, study {report.StudyInstanceUID}")

for group in report.content.get_volumetric_roi_measurement_groups():
    print(f"\n{group.tracking_identifier}")
    for one in group.get_measurements():
        print(f"  {one.name.meaning}: {one.value:.6g} {one.unit.value}")
    for one in group.get_qualitative_evaluations():
        print(f"  {one.name.meaning}: {one.value.meaning}")
