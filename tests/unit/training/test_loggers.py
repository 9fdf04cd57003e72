from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from pneumo.metrics.predictions import Predictions
from pneumo.training.loggers import RunLogger


def test_precision_recall_curves_rank_saturated_images_by_their_margin(tmp_path: Path) -> None:
    margin = np.arange(40.0, 70.0)
    positive = margin >= 50  # every positive image ranks above every negative one
    logger = RunLogger(str(tmp_path))
    logger.log_predictions(
        Predictions.binary(np.ones(30), positive, np.ones(30, bool), ("NORMAL", "PNEUMONIA"), margin=margin), 1
    )
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path)).Reload()
    (event,) = events.Tensors("test/precision_recall/PNEUMONIA")
    true, false, _, missed, precision, recall = make_ndarray(event.tensor_proto)
    assert ((precision == 1) & (recall == 1)).any()  # one threshold separates the classes
    assert recall[np.argmax(precision == 1)] == 1
    assert (true[0], false[0], missed[0]) == (20, 10, 0)
