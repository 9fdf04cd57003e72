import pytest
import torch

from pneumo.models.feature_maps import Layout


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (Layout("channels first", 4), (2, 3, 4, 4)),
        (Layout("channels last", 4), (2, 4, 4, 3)),
        (Layout("tokens", 4, 2), (2, 18, 3)),
    ],
)
def test_feature_maps_round_trip(layout: Layout, shape: tuple[int, ...]) -> None:
    output = 1 + torch.arange(torch.Size(shape).numel()).reshape(shape)
    feature_map = layout.to_map(output)
    assert feature_map.shape == (2, 3, 4, 4)
    assert torch.equal(layout.from_map(feature_map, output), output)
    assert int((layout.from_map(0 * feature_map, output) != 0).sum()) == torch.count_nonzero(output[:, : layout.prefix])
