import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from pneumo.data.group_folds import GroupFolds


@pytest.mark.filterwarnings("ignore:The least populated class")
@pytest.mark.parametrize("seed", range(30))
def test_folds_equal_those_of_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    images, classes, folds = (int(generator.integers(*limits)) for limits in ((60, 400), (2, 14), (2, 8)))
    label = generator.choice(classes, images, p=generator.dirichlet(np.ones(classes)))
    patient = generator.integers(0, generator.integers(folds, images), images)
    expected, actual = (
        [test.tolist() for _, test in kind(folds, shuffle=True, random_state=seed).split(label, label, patient)]
        for kind in (StratifiedGroupKFold, GroupFolds)
    )
    assert actual == expected


def test_the_method_that_is_replaced_exists() -> None:
    assert "_find_best_fold" in vars(StratifiedGroupKFold)
