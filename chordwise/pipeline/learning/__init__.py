"""Learning how good results are: feedback, evaluation against the truth, calibration."""
