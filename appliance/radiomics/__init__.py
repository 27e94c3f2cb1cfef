"""From a reference volume and its mask to the selected features."""
