"""Learning from people: feedback, gold files, evaluation, certification and calibration."""
