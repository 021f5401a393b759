"""A sampling graph: rows of a time series are mixed with those near in time."""

import torch

import pyro_probmix as pm


class TimeWindowGraph(pm.mixing.PartnerGraph):
    """Partners are at most ``width`` rows earlier or later, each as likely."""

    def __init__(self, num_nodes, width):
        super().__init__(num_nodes)
        self.width = width

    def sample_partners(self, sources, generator=None):
        low = (sources - self.width).clamp(min=0)
        high = (sources + self.width).clamp(max=self.num_nodes - 1)
        partners = low + (torch.rand(len(low), generator=generator, device="cpu") * (high - low)).long()
        return partners + (partners >= sources)  # which leaves the source itself out
