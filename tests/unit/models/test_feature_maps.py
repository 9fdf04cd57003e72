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
def test_places_go_out_and_back(layout: Layout, shape: tuple[int, ...]) -> None:
    output = 1 + torch.arange(torch.Size(shape).numel()).reshape(shape)
    places = layout.to_map(output)
    assert places.shape == (2, 3, 4, 4)
    assert torch.equal(layout.from_map(places, output), output)
    assert int((layout.from_map(0 * places, output) != 0).sum()) == torch.count_nonzero(output[:, : layout.prefix])
