"""State dicts of foreign naming conventions, matched to a network and loaded."""

import contextlib
import logging
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pneumo.common.tensor_files import is_dense
from pneumo.common.text import plain
from pneumo.errors import WeightsError

StateDict = dict[str, Tensor]
Converter = Callable[[StateDict, nn.Module], StateDict]
_log = logging.getLogger(__name__)
_COUNTER = "num_batches_tracked"  # of batch normalization: without effect in these networks
_LEAVES = {"weight", "bias", "running_mean", "running_var"}
_RENAMES = (
    (re.compile(r"_(?:orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module)\."), ""),
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)"), r"\1\2"),  # as torchvision's builder of DenseNets does
)


class _MisfitError(Exception):
    """A state dict does not fit a network; the text is the reason."""


class _Candidate(NamedTuple):
    state: StateDict  # under the network's names
    how: str
    unused: list[str]
    level: int = logging.INFO


def load_state_dict(
    network: nn.Module, state: StateDict, head_path: str, origin: str, convert: Converter | None = None
) -> None:
    """Load a state dict into a network, in place, and log what was matched and what was not used.

    Tensors are matched by name after any common prefix. If they do not fit, `convert` is tried, which translates other
    layouts of the architecture, then the order of the tensors. The head, at `head_path`, and the counters of batch
    normalization may be missing; the head is never loaded. `origin` names the state dict in messages.

    Raises:
        WeightsError: A tensor of the network is missing or has another shape.
    """
    reasons = []
    for candidate in _candidates(network, _rename(state), f"{head_path}.", convert):
        try:
            unused = candidate.unused + _load(network, candidate.state, f"{head_path}.")
        except _MisfitError as error:
            reasons.append(str(error))
            continue
        rest = f"; {_count(unused)} of its tensors not used" if unused else ""
        _log.log(candidate.level, "Loaded %s: matched %s%s.", origin, candidate.how, rest)
        return
    raise WeightsError(
        f"{origin} does not fit the network: {reasons[0]}. Choose the weights of the same architecture and, where its "
        "shape depends on it, of the same data.image_size."
    )


def _rename(state: StateDict) -> StateDict:
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in _RENAMES:
            name = pattern.sub(replacement, name)
        renamed[name] = tensor
    return renamed


def _candidates(network: nn.Module, state: StateDict, head: str, convert: Converter | None) -> Iterator[_Candidate]:
    own = network.state_dict()
    yield _by_name(state, own, head)
    converted = None
    # A converter may raise almost anything for an unknown layout; the reason reported is then that of the names.
    with contextlib.suppress(AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        converted = convert and _by_name(convert(dict(state), network), own, head)
    if converted:
        yield converted._replace(how=f"{converted.how}, converted by the architecture's library")
    if by_order := _by_order(state, own, head):
        yield by_order


def _by_name(state: StateDict, own: StateDict, head: str) -> _Candidate:
    hits: Counter[str] = Counter()  # of each prefix, in the order of the file
    deepest = max(name.count(".") for name in own) + 1
    for name in state:
        starts = [0, *(dot.end() for dot in re.finditer(r"\.", name))][-deepest:]
        hits.update(name[:start] for start in starts if name[start:] in own and not name[start:].startswith(head))
    prefix = max(hits, key=lambda prefix: hits[prefix], default="")
    others = [other for other in hits if other != prefix and hits[other] == hits[prefix]]
    how = f"by name after the prefix {prefix!r}" if prefix else "by name"
    if others:
        how += f", although it also fits after {_first([repr(other) for other in others])}"
    found = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    return _Candidate(
        {name: tensor for name, tensor in found.items() if not name.startswith(head)},
        how,
        [name for name in state if not name.startswith(prefix)],
        logging.WARNING if others else logging.INFO,
    )


def _by_order(state: StateDict, own: StateDict, head: str) -> _Candidate | None:
    """Match the same network under other names, as packages of converted weights have it."""
    plain, given = ([name for name in names if not name.endswith(_COUNTER)] for names in (own, state))
    if len(own) == len(state):
        plain, given = list(own), list(state)
    elif len(plain) != len(given):
        plain = [name for name in plain if not name.startswith(head)]  # the file has no head, or another at its end
    pairs = {name: other for name, other in zip(plain, given, strict=False) if not name.startswith(head)}
    leaves = [(name.rpartition(".")[2], other.rpartition(".")[2]) for name, other in pairs.items()]
    rest = given[len(plain) :]
    if (
        len(given) < len(plain)
        or any(state[other].ndim > 2 for other in rest)  # further convolutions are no head
        or any(state[other].shape != own[name].shape for name, other in pairs.items())
        or any(leaf != other and {leaf, other} <= _LEAVES for leaf, other in leaves)  # such as a bias for a mean
    ):
        return None
    names = list(pairs)
    shown = ", ".join(f"{pairs[name]} as {name}" for name in (names[0], names[-1]))
    return _Candidate(
        {name: state[other] for name, other in pairs.items()},
        f"by order and shape, not by name ({len(pairs)} tensors, first and last {shown})",
        rest,
        logging.INFO if all(leaf == other for leaf, other in leaves) else logging.WARNING,
    )


def _load(network: nn.Module, found: StateDict, head: str) -> list[str]:
    """Load by the network's own method, whose hooks rename old layouts, and return the names that it did not use."""
    own = network.state_dict()
    needed = [name for name in own if not name.startswith(head) and not name.endswith(_COUNTER)]
    wrong = [name for name in needed if name in found and found[name].shape != own[name].shape]
    if odd := [name for name in needed if name in found and not _is_real(found[name])]:
        raise _MisfitError(f"{_count(odd)} of its tensors are complex, sparse or quantized, or have no finite values")
    if wrong:
        missing = [name for name in needed if name not in found]
        unused: list[str] = []
    else:
        state = OrderedDict(found)
        # Modules get no version, which is the oldest; MNASNet requires one, and would change its layers for an old one.
        setattr(state, "_metadata", {"": {"version": getattr(network, "_version", 1)}})  # noqa: B010 (torch's name)
        try:
            missing, unused = network.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise _MisfitError(plain(error, 300)) from error
        missing = [name for name in needed if name in set(missing)]
    if len(missing) == len(needed):
        others = f"but {_count(list(found))}" if found else "only those of a head"
        raise _MisfitError(f"it has none of the {len(needed)} tensors ({_first(needed)}), {others}")
    shapes = [f"{name} is {tuple(found[name].shape)} instead of {tuple(own[name].shape)}" for name in wrong]
    faults = {"missing": missing, "of another shape": shapes}
    if missing or wrong:
        parts = [f"{len(names)} are {fault} ({_first(names)})" for fault, names in faults.items() if names]
        raise _MisfitError(f"of {len(needed)} tensors, {' and '.join(parts)}")
    # A deeper network of the same family has all names and shapes of a shallower one.
    modules = {name.partition(".")[0] for name in needed} - {head.partition(".")[0]}
    further = [name for name in unused if name.partition(".")[0] in modules and name.endswith((".weight", ".bias"))]
    if further:
        raise _MisfitError(f"it has {_count(further)} further weights in modules of the network")
    return unused


def _is_real(tensor: Tensor) -> bool:
    return is_dense(tensor) and not tensor.is_complex() and bool(torch.isfinite(tensor).all())


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} ({_first(names)})"


def _first(names: Sequence[str]) -> str:
    return ", ".join(plain(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
