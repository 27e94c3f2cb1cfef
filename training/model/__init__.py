"""The parts of a model: preprocessing, networks, calibration, distance from the training cohort."""
