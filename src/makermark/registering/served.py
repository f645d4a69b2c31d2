"""What MLflow runs to load and to ask the model: this file is copied into it (models from code), nothing is pickled."""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class ServedTracer(PythonModel):
    """A tracer that MLflow asks."""

    def load_context(self, context: Any) -> None:
        """Open the tracer among the model's files, on the processor."""
        from makermark.tracing import Tracer

        self._tracer = Tracer.load(Path(context.artifacts["models"]), device="cpu")

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """A verdict for each row; `prior_known` in `params`: that the maker is in the gallery."""
        from makermark.registering.asking import answer

        tracer = self._tracer
        prior_known = (params or {}).get("prior_known")
        return answer(
            tracer if prior_known is None else tracer.with_settings(prior_known=prior_known), model_input
        )


set_model(ServedTracer())
