"""Training, comparison, explanation and use of chest X-ray pneumonia classifiers.

Public API: `load_model` loads a checkpoint or an exported network as a `Predictor`. Its `predict` yields a `Prediction`
for each file, its `explain` returns an `Explanation`, and its `evaluate` an `Evaluation` on labelled images.
"""

from typing import TYPE_CHECKING

from pneumo.common import __version__

if TYPE_CHECKING:
    from pneumo.inference.evaluate.evaluation import Evaluation
    from pneumo.inference.explain.overlays import Explanation
    from pneumo.inference.prediction import Prediction
    from pneumo.inference.predictor import Predictor, load_model

__all__ = ["Evaluation", "Explanation", "Prediction", "Predictor", "__version__", "load_model"]

if not TYPE_CHECKING:  # type checkers must reject unknown names

    def __getattr__(name: str) -> object:
        """Import a part of the public API on first use, so that `import pneumo` loads no libraries."""
        from importlib import import_module

        modules = {"Evaluation": "evaluate.evaluation", "Explanation": "explain.overlays", "Prediction": "prediction"}
        if name not in __all__:
            raise AttributeError(f"module 'pneumo' has no attribute {name!r}")
        return getattr(import_module(f"pneumo.inference.{modules.get(name, 'predictor')}"), name)
