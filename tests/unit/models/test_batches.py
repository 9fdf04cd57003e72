import pytest
import torch

from pneumo.models.batches import mix, split


@pytest.mark.parametrize("shape", [(6, 1, 4, 4), (6, 5)])
def test_mixing_gives_each_the_smaller_share_of_another_and_of_its_label(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    label = torch.tensor([0, 1, 2, 2, 1, 0])
    own = label.float().view(-1, *(1,) * (len(shape) - 1)).expand(shape)
    seen = set()
    for _ in range(20):
        mixed, shares = mix(own, label, 3, alpha=0.4)
        other = 1 - shares[1, 1].item()  # its partner has another label
        assert 0 <= other <= 0.5
        seen.add(round(other, 6))
        assert torch.equal(shares.sum(1), torch.ones(6))
        assert torch.equal(shares.argmax(1), label)
        expected = (shares @ torch.arange(3.0)).view(-1, *(1,) * (len(shape) - 1)).expand(shape)
        torch.testing.assert_close(mixed, expected)
    assert len(seen) == 20, "each batch draws anew"


def test_splitting_loses_nothing() -> None:
    batch = {"input": torch.arange(10.0).view(5, 2), "label": torch.arange(5)}
    parts = split(batch, 2)
    assert [len(part["label"]) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([part["input"] for part in parts]), batch["input"])
    assert split(batch, 5) == [batch]
