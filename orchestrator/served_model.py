"""The code of the models that MLflow keeps of sweeps: MLflow stores this file and runs it where `hrm` is installed.

Nothing is pickled: the weights are in the artifact `checkpoint` (`hrm.serving`). MLflow alone imports this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas  # type: ignore[import-untyped]
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from hrm.errors import SpecError
from hrm.generate import Sampling
from hrm.serving import Answers, TextAnswers, open_answers
from orchestrator.generate_options import NEW_TOKENS


class ServedModel(PythonModel):
    """A column `prompt` is answered by `text`; a column `puzzle` by `solution`, `confidence`, `segments`."""

    answers: Answers

    def load_context(self, context: PythonModelContext) -> None:
        """Open the checkpoint."""
        self.answers = open_answers(Path(context.artifacts["checkpoint"]))

    def predict(
        self, context: PythonModelContext, model_input: pandas.DataFrame, params: dict[str, Any] | None = None
    ) -> pandas.DataFrame:
        """Answer every row; what is wrong with one is the caller's mistake, and said."""
        try:
            return self._answered(model_input, params or {})
        except SpecError as error:
            raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from error

    def _answered(self, rows: pandas.DataFrame, params: dict[str, Any]) -> pandas.DataFrame:
        if isinstance(self.answers, TextAnswers):
            how = Sampling(params.get("temperature", 0.0), params.get("top_p", 1.0), params.get("seed", 0))
            said = self.answers.continued(rows["prompt"].tolist(), params.get("max_new_tokens", NEW_TOKENS), how)
            return pandas.DataFrame({"text": said})
        solved = self.answers.solved(rows["puzzle"].tolist())
        names = ("solution", "confidence", "segments")
        return pandas.DataFrame({name: [getattr(each, name) for each in solved] for name in names})


set_model(ServedModel())
