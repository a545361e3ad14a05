"""Learning what results are worth: feedback, evaluations against the truth, calibrations."""
