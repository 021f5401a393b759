"""A network cut in two after one of its layers."""

from __future__ import annotations

import operator
from collections import OrderedDict
from typing import Any

import torch
from torch import fx, nn

from pyro_probmix._checks import as_module

__all__ = ["split"]

_PREFIX = "network."


def split(network: nn.Module, at: int | str) -> tuple[nn.Module, nn.Module]:
    r"""Cut a network into an encoder and a decoder, :math:`f = h_{\theta_1} \circ h_{\theta_0}` (Section 3.2.2).

    ``decoder(encoder(x))`` is ``network(x)``, in value and gradient, in training and evaluation mode. Both parts call
    the network's own layers: parameters and buffers are shared, and nothing is copied.

    By name, the embedding is the output of that submodule. The ``forward`` of the modules around it is traced by
    ``torch.fx``, so it may not branch on the values or shapes of tensors; all other modules are called as they are.

    Args:
        network: called with one tensor.
        at: of an ``nn.Sequential``, how many of its layers are the encoder's; of any module, the name of a submodule
            as in ``named_modules``, e.g. ``"layers.2"``.

    Returns:
        encoder, x → embedding, and decoder, embedding → output.

    Raises:
        TypeError: if ``network`` is not a module, or ``at`` is neither integer nor name.
        ValueError: if there is no such layer, or the network cannot be cut there: the layer is not called exactly
            once, its output is not one tensor, or what follows needs more than its output.

    Example:
        >>> network = pm.nn.MLP(13, [128, 32], 2)
        >>> encoder, decoder = split(network, at=2)
        >>> model = pm.ManifoldProbMix(pm.nn.NormalEmbedding(encoder, 128), decoder, pm.nn.NormalLikelihood())
    """
    as_module("network", network)
    if isinstance(at, bool) or not isinstance(at, int | str):
        raise TypeError(f"at: expected the name of a submodule or a number of layers, got {at!r}")
    if not isinstance(network, nn.Sequential) or type(network).forward is not nn.Sequential.forward:
        if isinstance(at, int):
            raise ValueError(f"at: expected the name of a submodule to split {type(network).__name__} at, got {at}")
        return _split_by_name(network, at)
    layers = list(network._modules.items())  # named_children leaves out a layer's second place
    if isinstance(at, str):
        if at not in network._modules:
            return _split_by_name(network, at)
        at = [name for name, _ in layers].index(at) + 1
    if not 1 <= at <= len(layers):
        raise ValueError(f"at: expected from 1 to {len(layers)} layers, got {at}")
    return nn.Sequential(OrderedDict(layers[:at])), nn.Sequential(OrderedDict(layers[at:]))


def _split_by_name(network: nn.Module, at: str) -> tuple[nn.Module, nn.Module]:
    names = [name for name, _ in network.named_modules() if name]
    if at not in names:
        raise ValueError(f"at: expected the name of a submodule, one of {names}, got {at!r}")
    with torch.random.fork_rng(devices=[]):
        root, graph = _trace(network, at, network.training)
        other_root, other = _trace(network, at, not network.training)
    constants = zip(root.buffers(recurse=False), other_root.buffers(recurse=False), strict=False)
    if str(graph) != str(other) or not all(torch.equal(one, two) for one, two in constants):
        raise ValueError(
            f"at: expected modules around {at!r} that do the same in every call, in training and evaluation mode"
        )
    cuts = [node for node in graph.nodes if node.op == "call_module" and node.target == _PREFIX + at]
    if len(cuts) != 1:
        raise ValueError(f"at: expected a submodule that is called once, got {at!r}, called {len(cuts)} times")
    cut = cuts[0]
    if any(user.target is operator.getitem and isinstance(user.args[1], int) for user in cut.users):
        kind = type(network.get_submodule(at)).__name__
        raise ValueError(f"at: expected a submodule whose output is one tensor, got {at!r}, a {kind} with several")
    nodes = list(graph.nodes)
    position = nodes.index(cut) + 1
    return _part(root, nodes[:position], None, cut), _part(root, nodes[position:], cut, None)


class _Root(nn.Module):
    """Calls the network with one argument, and takes the constants that tracing finds."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = network.training

    def forward(self, x: Any) -> Any:
        return self.network(x)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            self.register_buffer(name, value)
        else:
            super().__setattr__(name, value)


class _Tracer(fx.Tracer):
    """Looks into the modules around ``at`` only, and does not work with the values of buffers."""

    proxy_buffer_attributes = True

    def __init__(self, at: str) -> None:
        super().__init__()
        self.at = _PREFIX + at

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not self.at.startswith(f"{module_qualified_name}.")


def _trace(network: nn.Module, at: str, training: bool) -> tuple[_Root, fx.Graph]:
    root = _Root(network)
    # What forward assigns is put back: while it is traced, that has no values.
    before = {module: (dict(vars(module)), dict(module._buffers)) for module in network.modules()}
    try:
        for module in before:
            module.training = training
        graph = _Tracer(at).trace(root)
        for module, (_, buffers) in before.items():
            if any(module._buffers[name] is not buffer for name, buffer in buffers.items()):
                raise ValueError(f"{type(module).__name__} assigns to a buffer of its own")
        return root, graph
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError, AttributeError, NameError) as error:
        raise ValueError(
            f"at: expected modules around {at!r} that torch.fx can trace, called with one tensor and without branches "
            f"on it; {error}"
        ) from error
    finally:
        for module, (attributes, buffers) in before.items():
            vars(module).clear()
            vars(module).update(attributes)
            module._buffers.clear()
            module._buffers.update(buffers)


def _part(root: _Root, nodes: list[fx.Node], source: fx.Node | None, result: fx.Node | None) -> fx.GraphModule:
    """The steps ``nodes``, as a module from the value of ``source`` (None: the network's input) to ``result``."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    attributes: dict[str, Any] = {}
    if source is not None:
        copies[source] = graph.placeholder("embedding")

    def copied(node: fx.Node) -> fx.Node:
        if node not in copies:
            if source is not None and node.op == "placeholder":
                raise ValueError(
                    f"at: expected that what follows needs the output of {str(source.target).removeprefix(_PREFIX)!r} "
                    "alone, got a network that uses its input again, or what it computed from it before"
                )
            copy = copies[node] = graph.node_copy(node, copied)
            copy.type = None  # the annotation's text, which could not be pickled
            if node.op in ("call_module", "get_attr"):
                name = str(node.target)
                copy.target = name.removeprefix(_PREFIX)
                attributes[copy.target] = operator.attrgetter(name)(root)
        return copies[node]

    for node in nodes:
        copied(node)
    if result is not None:
        graph.output(copies[result])
    part = fx.GraphModule(attributes, graph, type(root.network).__name__)
    part.training = root.network.training
    return part
