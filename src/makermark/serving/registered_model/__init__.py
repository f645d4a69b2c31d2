"""The tracer as a registered MLflow model: prediction, model card, packaging and registration."""
