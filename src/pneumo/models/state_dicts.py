"""State dict loading, with matching of naming conventions of other libraries."""

import contextlib
import logging
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pneumo.common.tensor_files import is_dense
from pneumo.common.text import short_line
from pneumo.errors import WeightsError

StateDict = dict[str, Tensor]
Converter = Callable[[StateDict, nn.Module], StateDict]
_log = logging.getLogger(__name__)
_COUNTER = "num_batches_tracked"  # of batch normalization; has no effect in these networks
_LEAVES = {"weight", "bias", "running_mean", "running_var"}
_RENAMES = (
    (re.compile(r"_(?:orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module)\."), ""),
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)"), r"\1\2"),  # as in torchvision's DenseNet builder
)


class _MismatchError(Exception):
    """A state dict that does not match a network; the text is the reason."""


class _Candidate(NamedTuple):
    state: StateDict  # tensors under the network's names
    method: str  # matching method, for the log
    unused: list[str]  # names in the file
    level: int = logging.INFO


def load_state_dict(
    network: nn.Module, state: StateDict, head_path: str, origin: str, convert: Converter | None = None
) -> None:
    """Load a state dict into a network, in place, and log the matching method and unused tensors.

    Three methods are tried in turn: names after any common prefix, names after conversion by `convert`, and the order
    of the tensors. The head, at `head_path`, is never loaded. The head and the counters of batch normalization may be
    missing. `origin` is the name of the state dict in messages.

    Raises:
        WeightsError: A tensor of the network is missing or has another shape.
    """
    reasons = []
    for candidate in _candidates(network, _rename(state), f"{head_path}.", convert):
        try:
            unused = candidate.unused + _load(network, candidate.state, f"{head_path}.")
        except _MismatchError as error:
            reasons.append(str(error))
            continue
        rest = f"; unused tensors: {_count(unused)}" if unused else ""
        _log.log(candidate.level, "Loaded %s: matched %s%s.", origin, candidate.method, rest)
        return
    raise WeightsError(
        f"{origin} does not match the network: {reasons[0]}. Use weights of the same architecture and, if its shapes "
        "depend on it, of the same data.image_size."
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
    # Converters may raise almost any error for an unknown layout; the reported reason is then that of matching by name.
    with contextlib.suppress(AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        converted = convert and _by_name(convert(dict(state), network), own, head)
    if converted:
        yield converted._replace(method=f"{converted.method}, converted by the architecture's library")
    if by_order := _by_order(state, own, head):
        yield by_order


def _by_name(state: StateDict, own: StateDict, head: str) -> _Candidate:
    matches: Counter[str] = Counter()  # number of matches of each prefix, in file order
    deepest = max(name.count(".") for name in own) + 1
    for name in state:
        starts = [0, *(dot.end() for dot in re.finditer(r"\.", name))][-deepest:]
        matches.update(name[:start] for start in starts if name[start:] in own and not name[start:].startswith(head))
    prefix = max(matches, key=lambda prefix: matches[prefix], default="")
    others = [other for other in matches if other != prefix and matches[other] == matches[prefix]]
    method = f"by name after the prefix {prefix!r}" if prefix else "by name"
    if others:
        method += f", although it also matches after {_first([repr(other) for other in others])}"
    stripped = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    return _Candidate(
        {name: tensor for name, tensor in stripped.items() if not name.startswith(head)},
        method,
        [name for name in state if not name.startswith(prefix)],
        logging.WARNING if others else logging.INFO,
    )


def _by_order(state: StateDict, own: StateDict, head: str) -> _Candidate | None:
    """Match tensors by order and shape, for converted weights of the same network with other names."""
    needed, given = ([name for name in names if not name.endswith(_COUNTER)] for names in (own, state))
    if len(own) == len(state):
        needed, given = list(own), list(state)
    elif len(needed) != len(given):
        needed = [name for name in needed if not name.startswith(head)]  # no head, or another one at the end
    pairs = {name: other for name, other in zip(needed, given, strict=False) if not name.startswith(head)}
    leaves = [(name.rpartition(".")[2], other.rpartition(".")[2]) for name, other in pairs.items()]
    rest = given[len(needed) :]
    if (
        len(given) < len(needed)
        or any(state[other].ndim > 2 for other in rest)  # additional convolutions are not a head
        or any(state[other].shape != own[name].shape for name, other in pairs.items())
        or any(leaf != other and {leaf, other} <= _LEAVES for leaf, other in leaves)  # such as a bias matched to a mean
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


def _load(network: nn.Module, tensors: StateDict, head: str) -> list[str]:
    """Load with the network's own method, whose hooks convert old layouts, and return unused names."""
    own = network.state_dict()
    needed = [name for name in own if not name.startswith(head) and not name.endswith(_COUNTER)]
    wrong = [name for name in needed if name in tensors and tensors[name].shape != own[name].shape]
    if invalid := [name for name in needed if name in tensors and not _is_real(tensors[name])]:
        kinds = "complex, sparse, quantized or have non-finite values"
        raise _MismatchError(f"{_count(invalid)} of its tensors are {kinds}")
    if wrong:
        missing = [name for name in needed if name not in tensors]
        unused: list[str] = []
    else:
        state = OrderedDict(tensors)
        # Only the network gets a version. Hooks of its submodules then assume the oldest layout. MNASNet requires a
        # version and would change its layers for version 1.
        setattr(state, "_metadata", {"": {"version": getattr(network, "_version", 1)}})  # noqa: B010 (torch's name)
        try:
            missing, unused = network.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise _MismatchError(short_line(error, 300)) from error
        missing = [name for name in needed if name in set(missing)]
    if len(missing) == len(needed):
        others = f"but {_count(list(tensors))}" if tensors else "only those of a head"
        raise _MismatchError(f"it has none of the {len(needed)} tensors ({_first(needed)}), {others}")
    shapes = [f"{name} is {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}" for name in wrong]
    faults = {"are missing": missing, "have another shape": shapes}
    if missing or wrong:
        parts = [f"{len(names)} {fault} ({_first(names)})" for fault, names in faults.items() if names]
        raise _MismatchError(f"of {len(needed)} tensors, {' and '.join(parts)}")
    # A deeper network of the same family contains all names and shapes of a shallower one.
    modules = {name.partition(".")[0] for name in needed} - {head.partition(".")[0]}
    additional = [name for name in unused if name.partition(".")[0] in modules and name.endswith((".weight", ".bias"))]
    if additional:
        raise _MismatchError(f"it has additional weights in modules of the network: {_count(additional)}")
    return unused


def _is_real(tensor: Tensor) -> bool:
    return is_dense(tensor) and not tensor.is_complex() and bool(torch.isfinite(tensor).all())


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} ({_first(names)})"


def _first(names: Sequence[str]) -> str:
    return ", ".join(short_line(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
