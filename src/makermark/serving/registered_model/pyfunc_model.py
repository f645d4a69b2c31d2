"""Model code of the registered model (MLflow "models from code"): copied into the model, so nothing is pickled."""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class TracerModel(PythonModel):
    """MLflow model around a tracer."""

    def load_context(self, context: Any) -> None:
        """Load the tracer from the model's artifacts, on the CPU."""
        from makermark.tracing import Tracer

        self._tracer = Tracer.load(Path(context.artifacts["models"]), device="cpu")

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return one row per clip; `params["prior_known"]` replaces the default prior."""
        from makermark.serving.registered_model.predict import predict_clips

        tracer = self._tracer
        prior_known = (params or {}).get("prior_known")
        return predict_clips(
            tracer if prior_known is None else tracer.with_settings(prior_known=prior_known), model_input
        )


set_model(TracerModel())
