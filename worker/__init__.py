"""Process 1: the Celery worker, a thin layer over the pipeline."""
