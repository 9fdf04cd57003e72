import pytest
import torch

from pneumo.models.logits import calibrate_logits, log_odds

LOGITS = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) * 5


def test_without_intercept_logits_are_bit_identical_to_temperature_scaling() -> None:
    assert torch.equal(calibrate_logits(LOGITS, 1.7, 0.0), LOGITS / 1.7)


@pytest.mark.parametrize("intercept", [-3.0, 0.5])
def test_log_odds_are_scaled_and_shifted(intercept: float) -> None:
    expected = (LOGITS[:, 1] - LOGITS[:, 0]) / 1.7 + intercept
    torch.testing.assert_close(log_odds(calibrate_logits(LOGITS, 1.7, intercept))[:, 1], expected)
