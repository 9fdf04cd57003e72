from pathlib import Path

import pytest

from pneumo.inference.onnx_backend import SHA256, ChecksumError, add_checksum, verify_checksum


def test_every_flipped_bit_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    outcomes: dict[int, bool | None] = {}
    whole = add_checksum(bytes(range(40)))
    path.write_bytes(whole)
    assert verify_checksum(path)
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            outcomes[bit] = verify_checksum(path)
        except ChecksumError:
            outcomes[bit] = None
    unverified = {bit for bit, outcome in outcomes.items() if outcome is not None}
    key = whole.index(SHA256.encode())
    assert {bit // 8 for bit in unverified} == set(range(key, key + len(SHA256)))  # no checksum then, which is logged
    assert not any(outcomes.values())


@pytest.mark.parametrize("content", [b"", b"short", bytes(1000)])
def test_a_file_without_a_checksum_is_not_verified(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    assert not verify_checksum(path)
