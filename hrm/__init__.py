"""Trains, evaluates and runs one model, anywhere. Knows nothing of Ray, Optuna or MLflow.

Importing it lets Transformers' Auto classes find our models, once Transformers is imported.
"""

from hrm.huggingface.registration import register_when_imported

register_when_imported()
