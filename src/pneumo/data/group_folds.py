"""Stratified folds of groups."""

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

_Counts = npt.NDArray[np.float64]


class GroupFolds(StratifiedGroupKFold):  # type: ignore[misc]  # scikit-learn has no types
    """scikit-learn's StratifiedGroupKFold, with the same folds in a fraction of the time.

    scikit-learn evaluates the folds one by one for each group: 9 seconds for 33,000 groups.
    """

    def _find_best_fold(self, y_counts_per_fold: _Counts, y_cnt: npt.NDArray[np.int64], group_y_counts: _Counts) -> int:
        """Return the fold for the next group: that with the most similar class fractions, then the smallest one.

        Args:
            y_counts_per_fold: Images of each class in each fold, (folds, classes).
            y_cnt: Images of each class, (classes,).
            group_y_counts: Images of each class in the group, (classes,).
        """
        additions = np.eye(self.n_splits)[:, :, None] * group_y_counts
        fractions = (y_counts_per_fold + additions) / y_cnt  # (folds, folds, classes): one row per choice
        scores: list[float] = fractions.std(axis=1).mean(axis=1).tolist()
        sizes: list[float] = y_counts_per_fold.sum(axis=1).tolist()
        best = 0
        for fold in range(1, self.n_splits):
            equal = abs(scores[fold] - scores[best]) <= 1e-8 + 1e-5 * scores[best]  # as np.isclose, but much faster
            if scores[fold] < scores[best] or (equal and sizes[fold] < sizes[best]):
                best = fold
        return best
