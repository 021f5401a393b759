"""A method: manifold mixup at the second hidden layer of a network."""

import pyro_probmix as pm


@pm.models.register_method("second_layer", label="Second layer", fuses="h₂(x)")
class SecondLayer(pm.ManifoldMixup):
    """Manifold mixup at the second hidden layer."""

    @classmethod
    def from_network(cls, network, likelihood, *, coefficient, **_):
        return cls(network[:4], network[4:], likelihood, coefficient)
