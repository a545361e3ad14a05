"""Process 1: the Celery worker, a thin shell over the pipeline."""
