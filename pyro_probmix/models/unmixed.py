"""The plain model inside a mixed one."""

from __future__ import annotations

from pyro.poutine.messenger import Messenger, block_messengers

from pyro_probmix.models.mixing import Mixing

__all__ = ["Unmixed", "as_mixed"]


class Unmixed(Messenger):
    """Inside it nothing is mixed: a model under :func:`~pyro_probmix.mix`, or a ready one, is the plain model it holds.

    No λ is drawn, each row has its own density, and each label is scored as it is. Rows that are masked stay so.

    Attributes:
        mixed: whether a model has run inside that would have been mixed otherwise.

    Example:
        >>> model = pm.ProbMix(pm.nn.MLP(2, [8], 2), pm.nn.NormalLikelihood())
        >>> batch = pm.CompleteGraph(3).pair_batch(torch.randn(3, 2), torch.randn(3))
        >>> with Unmixed() as plain, pyro.poutine.trace() as sites:
        ...     y = model(batch)
        >>> plain.mixed, "mixing_coefficient" in sites.trace
        (True, False)
        >>> log_prob = sites.trace.nodes["y"]["fn"].log_prob(batch.y)
        >>> torch.equal(log_prob, model.predictive(batch.x).log_prob(batch.y))
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self.mixed = False


def as_mixed(mixing: Mixing) -> Mixing:
    """What is mixed, here: nothing inside :class:`Unmixed`."""
    with block_messengers(lambda messenger: isinstance(messenger, Unmixed)) as found:
        if not found:
            return mixing
        plain = found[-1]
        assert isinstance(plain, Unmixed)
        plain.mixed |= mixing.at is not None or mixing.vicinity is not None
        return Mixing()
