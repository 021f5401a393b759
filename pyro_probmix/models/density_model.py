"""A conditional density model x → embedding → y, its risk and its predictive."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_probmix.distributions import linear_pool
from pyro_probmix.mixing import PairBatch
from pyro_probmix.mixing.batches import check_batch
from pyro_probmix.models.lazy import LazyDistribution, from_noise, rsample
from pyro_probmix.models.mix import MixMessenger
from pyro_probmix.models.mixing import Labels, Mixing
from pyro_probmix.models.plain import Objective, PlainStatements, labels_of, reduce
from pyro_probmix.models.seeding import seeded
from pyro_probmix.models.statements import (
    EMBEDDING_SITE,
    LABEL_SITE,
    PLATE,
    Owned,
    drawn_by_guide,
    sample_alike,
    sample_scored,
)
from pyro_probmix.nn import NormalEmbedding

__all__ = ["DensityModel", "Guide"]


class DensityModel(Owned):
    """Conditional density model with named stages, x → embedding → y, and one of them fused or none.

    Calling it with a batch runs the Pyro model: plate ``data``, in it ``mixing_coefficient``, ``embedding`` where
    there is an encoder, and ``y``. :meth:`risk` evaluates the same statements without Pyro's machinery.

    Args:
        encoder: x → embedding, a tensor or a distribution; None for the identity.
        decoder: embedding → raw outputs of the likelihood.
        likelihood: raw outputs → distribution of y.
        mixing: what is fused and how; None for nothing.
        propagate: ``"sample"`` draws a stochastic embedding, ``"mean"`` hands its mean on (Theorem 4.7).

    Raises:
        TypeError: if ``likelihood`` does not tell the shape and the support of y.
        ValueError: if ``propagate`` is neither.
    """

    encoder: Any
    decoder: Any
    likelihood: Any

    def __init__(
        self,
        encoder: nn.Module | None,
        decoder: nn.Module,
        likelihood: nn.Module,
        mixing: Mixing | None = None,
        propagate: Literal["sample", "mean"] = "sample",
    ) -> None:
        super().__init__()
        if propagate not in ("sample", "mean"):
            raise ValueError(f'propagate: expected "sample" or "mean", got {propagate!r}')
        is_module = isinstance(likelihood, nn.Module)
        if not (is_module and hasattr(likelihood, "event_shape") and hasattr(likelihood, "support")):
            raise TypeError(
                "likelihood: expected a module with event_shape and support, such as NormalLikelihood, "
                f"got {type(likelihood).__name__}"
            )
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.mixing = Mixing() if mixing is None else mixing
        self.propagate = propagate

    @property
    def coefficient(self) -> Any:
        """The distribution of λ, None for a model that mixes nothing; assign another to anneal it in training."""
        return self.mixing.coefficient

    @coefficient.setter
    def coefficient(self, coefficient: Any) -> None:
        if self.mixing.coefficient is None:
            raise ValueError(f"coefficient: expected a model that mixes, got {type(self).__name__}")
        self.mixing = replace(self.mixing, coefficient=coefficient)

    @property
    def stochastic(self) -> bool:
        """Whether the embedding is a distribution."""
        return hasattr(self._modules.get("encoder"), "event_shape")

    # The model, stage by stage. `sample` and `deterministic` are Pyro's statements, or the plain ones of `risk`.

    def _embed(self, x: Tensor, sample: Any, deterministic: Any) -> tuple[Tensor, int]:
        """The embedding and its number of event dimensions."""
        event_dim = x.dim() - 1
        if self.mixing.at == "x":
            x = deterministic("x", x, event_dim=event_dim)
        # To Pyro, reading `self.encoder` is a statement that registers its parameters: only where it is called.
        encoder = self._modules.get("encoder")
        if encoder is None:
            return x, event_dim
        if self.stochastic:
            shape: Any = encoder.event_shape
            q = LazyDistribution(lambda: self.encoder(x), x.shape[:1], shape, self.propagate)
            return sample(EMBEDDING_SITE, q), len(q.event_shape)
        z = self.encoder(x)
        return deterministic(EMBEDDING_SITE, z, event_dim=z.dim() - 1), z.dim() - 1

    def _generate(self, batch: PairBatch, sample: Any, deterministic: Any) -> Tensor:
        z, event_dim = self._embed(batch.x, sample, deterministic)
        return sample("y", self.likelihood(_apply(self.decoder, z, event_dim)), obs=batch.y)

    def _observed(self, batch: PairBatch) -> Tensor | None:
        """Which edges have an output that is observed; None for all."""
        if batch.mask is None:
            return None
        observed = self.mixing.edge_mask(batch.mask, batch.partner, -batch.mask.dim())
        return observed.flatten(1).any(1) if observed.dim() > 1 else observed

    def forward(self, batch: PairBatch, latent_only: bool = False) -> Tensor | None:
        """The generative model (eqs. 12-13, 21-22) as a Pyro program.

        The density of the embedding is scored where a guide of another law has drawn it, such as
        :class:`PosteriorGuide`; by :attr:`guide` it is drawn as here, and the two terms would cancel.

        Args:
            batch: nodes and partners; without ``y`` the model samples it from the fused predictive (eq. 13).
            latent_only: stop before y, as the guide does.

        Returns:
            y, of shape ``(B,) + event_shape``.
        """
        check_batch(batch)
        if not latent_only:
            self._check(batch)
        drawn = drawn_by_guide()
        embedding, label = drawn.get(EMBEDDING_SITE), drawn.get(LABEL_SITE)
        alike = embedding is None or getattr(embedding.get("fn"), "_mask", None) is False
        sample = sample_alike if alike else sample_scored
        messenger = MixMessenger(self.mixing, batch, PLATE, latent_only, None if label is None else label["value"])
        with messenger, pyro.plate(PLATE, len(batch), dim=-1):
            messenger.draw()
            if not latent_only:
                return self._generate(batch, sample, pyro.deterministic)
            if self.stochastic:
                self._embed(batch.x, sample, pyro.deterministic)
            return None

    @property
    def guide(self) -> Guide:
        """The guide that draws λ and the embedding exactly as the model does."""
        return Guide(self)

    def risk(
        self,
        batch: PairBatch,
        num_samples: int = 1,
        labels: Labels | None = None,
        coefficient: Tensor | None = None,
        noise: Tensor | None = None,
        label: Tensor | None = None,
        weight: Tensor | None = None,
        objective: Objective = "expected-log",
    ) -> Tensor:
        r"""Monte-Carlo risk of eq. 16 (eq. 23 with an embedding), the mean over the batch in nats.

        With :math:`p_{ik} = \tilde p_\theta(\tilde y_{ik}|x_i, x_{j(i)}, \lambda_{ik})`, K samples and B nodes, the
        objectives are minus

        - ``"expected-log"``: :math:`\frac1B \sum_i \frac1K \sum_k \log p_{ik}` (eq. 16);
        - ``"log-expected"``: :math:`\frac1B \sum_i \log \frac1K \sum_k p_{ik}` (eq. 31, edge by edge);
        - ``"log-expected-graph"``: :math:`\log \frac1B \sum_i \frac1K \sum_k p_{ik}` (eq. 32, over the whole graph; a
          node of which nothing is observed is in neither sum nor B),

        in decreasing order by Jensen's inequality (eq. 34). The first is the loss of
        ``Trace_ELBO(num_particles=num_samples, vectorize_particles=True, max_plate_nesting=1)`` divided by the number
        of nodes, the same number for the same draws, without Pyro's machinery: for ``torch.optim``, ``torch.compile``
        and ``torch.func``. The second is that of ``RenyiELBO(alpha=0, ...)`` for a model with ``labels="sample"``. If
        λ is a :class:`~pyro_probmix.GaussJacobi`, its Q nodes are all evaluated and weighted, with K samples each.

        Args:
            batch: nodes and partners, with ``y``.
            num_samples: K ≥ 1, samples of λ, of the embedding and of the label.
            labels: ``"exact"`` or ``"sample"``; default: the model's own setting.
            coefficient: λ of shape ``(B,)`` or ``(K, B)``, the same for all samples or one each; default: drawn.
            noise: what a Normal embedding is made from, loc + scale · noise, of shape ``(B,) + event_shape`` or
                ``(K, B) + event_shape``; default: drawn.
            label: the label ỹ that is scored, of shape ``(B,) + event_shape`` or ``(K, B) + event_shape``; default:
                integrated out or drawn, as ``labels`` says.
            weight: of each node's term, of shape ``(B,)``, at least 0: the means over nodes are
                :math:`\sum_i w_i l_i / \sum_i w_i`; default: :math:`\frac1B \sum_i w_i l_i` with the weights of the
                batch, of mean one where :class:`~pyro_probmix.PairLoader` made it, so that batches stay unbiased.
            objective: which of the three; the last two draw labels, since none can be integrated out of a logarithm.

        Raises:
            TypeError: if there is ``noise`` for an embedding that is not Normal, or not drawn.
            ValueError: if ``y`` is missing or its shape is not the likelihood's, ``num_samples`` < 1, ``labels`` is
                or ``objective`` is unknown, ``labels="exact"`` is asked of an objective that draws labels, or a
                tensor's shape is none of these.
        """
        check_batch(batch)
        if num_samples < 1:
            raise ValueError(f"num_samples: expected at least 1, got {num_samples}")
        if batch.y is None:
            raise ValueError("batch: expected labels y, got None")
        if noise is not None and (not self.stochastic or self.propagate == "mean"):
            raise TypeError(f"noise: expected None, since no embedding is drawn, got {type(noise).__name__}")
        labels = labels_of(objective, labels)
        self._check(batch)
        log_shares = None
        if coefficient is None and self.mixing.num_coefficients > 1:
            num_samples *= self.mixing.num_coefficients
            log_shares = self.mixing.log_shares(num_samples)
        for name, value in (("coefficient", coefficient), ("noise", noise), ("label", label)):
            if value is not None:
                self._check_draw(name, value, len(batch), num_samples)
        if weight is not None and weight.shape != (len(batch),):
            raise ValueError(f"weight: expected shape {(len(batch),)}, got {tuple(weight.shape)}")
        statements = PlainStatements(self.mixing, batch, num_samples, labels, coefficient, noise, label)
        self._generate(batch, statements.sample, statements.deterministic)
        if weight is not None:
            share: Tensor | None = weight / weight.sum()
        else:
            weight = self.mixing.edge_weight(batch)
            share = None if weight is None else weight / len(batch)
        return -reduce(statements.log_prob, objective, log_shares, share, self._observed(batch))

    def draw(
        self, batch: PairBatch, num_samples: int = 1, labels: Labels | None = None, parts: bool = False
    ) -> dict[str, Tensor]:
        """The random numbers of :meth:`risk`, ahead of it: those that it would draw in this random state.

        ``model.risk(batch, num_samples, labels, **model.draw(batch, num_samples, labels))`` draws nothing, but what
        the networks draw themselves, and an embedding that is not a :class:`~pyro_probmix.nn.NormalEmbedding` or is
        pooled linearly.

        Args:
            batch: as for :meth:`risk`.
            num_samples: as for :meth:`risk`.
            labels: as for :meth:`risk`.
            parts: leave λ as what it is made from, where it ``has_parts`` and no label is drawn with it.

        Returns:
            ``coefficient``, ``noise`` and ``label``, as far as this model has them; ``gamma`` and ``uniform`` (see
            :meth:`LogSpaceBeta.rsample_parts <pyro_probmix.distributions.LogSpaceBeta.rsample_parts>`) instead of
            a ``coefficient`` that is left in parts.
        """
        mixing = self.mixing
        rows = num_samples * mixing.num_coefficients
        shape = (len(batch),) if rows == 1 else (rows, len(batch))
        draws = {}
        sampled = mixing.vicinity is not None and (labels or mixing.labels) == "sample"
        if parts and mixing.has_parts and not sampled:
            draws["gamma"], draws["uniform"] = mixing.law(batch.x).rsample_parts(shape)
        elif mixing.coefficient is not None:
            draws["coefficient"] = mixing.coefficients(batch.x, shape).expand(shape)
        pooled = mixing.at == EMBEDDING_SITE and mixing.fusion == "linear"
        noise = None if pooled else self.draw_noise(batch.x, shape)  # a mixture is drawn from otherwise
        if noise is not None:
            draws["noise"] = noise
        if sampled:
            if batch.y is None:
                raise ValueError("batch: expected labels y, got None")
            support = self.likelihood.support
            draws["label"] = mixing.draw_label(batch.y, batch.partner, draws["coefficient"], support)
        if mixing.num_coefficients > 1:
            del draws["coefficient"]  # not random
        return draws

    def draw_noise(self, x: Tensor, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor | None:
        """Standard normal numbers for the embedding of ``x``.

        Args:
            x: inputs, of shape ``(N, ...)``.
            shape: of the draws, ``(N,)`` or ``(S, N)``.
            generator: where they come from, on the device of ``x``; default: the global random state.

        Returns:
            Numbers of shape ``shape + event_shape``; None for a model that takes none.
        """
        encoder: Any = self._modules.get("encoder")
        if not isinstance(encoder, NormalEmbedding) or self.propagate == "mean":
            return None
        dtype = _first_dtype(encoder) or x.dtype
        return torch.randn(*shape, *encoder.event_shape, generator=generator, dtype=dtype, device=x.device)

    def predictive(self, x: Tensor, num_samples: int = 100, seed: int | None = 0, noise: Tensor | None = None) -> Any:
        """The predictive density p(y|x) as a Pyro distribution of batch shape ``(N,)``.

        Without a stochastic embedding it is the likelihood itself; with one, the equal-weight mixture over embedding
        samples, or the likelihood at the embedding's mean if the model propagates means.

        Args:
            x: inputs, of shape ``(N, ...)``.
            num_samples: S ≥ 1, embedding samples a point.
            seed: seed of the embedding noise, the global random state being left alone; None draws from that state.
            noise: what a Normal embedding is made from instead, of shape ``(S, N) + event_shape``.

        Raises:
            TypeError: if there is ``noise`` for an embedding that is not Normal.
            ValueError: if ``num_samples`` < 1, or ``noise`` has another shape.
        """
        if num_samples < 1:
            raise ValueError(f"num_samples: expected at least 1, got {num_samples}")
        if not self.stochastic:
            z = x if self.encoder is None else self.encoder(x)
            return self.likelihood(self.decoder(z))
        q = self.encoder(x)
        if self.propagate == "mean":
            return self.likelihood(self.decoder(q.mean))
        if noise is None:
            with seeded(seed, x.device):
                z = rsample(q, torch.Size([num_samples]))
        else:
            expected = (num_samples, len(x), *q.event_shape)
            if noise.shape != expected:
                raise ValueError(f"noise: expected shape {expected}, got {tuple(noise.shape)}")
            z = from_noise(q, noise)
        z = z.transpose(0, 1)
        return linear_pool(self.likelihood(_apply(self.decoder, z, len(q.event_shape))))

    def _check_draw(self, name: str, value: Tensor, size: int, num_samples: int) -> None:
        """Refuses random numbers of another shape than one a node, or one a sample and node."""
        event_shape: Any = ()
        if name == "label":
            event_shape = self.likelihood.event_shape
        elif name == "noise" and self.stochastic:
            event_shape = self.encoder.event_shape
        shapes = [(*leading, *event_shape) for leading in ((size,), (num_samples, size))]
        if value.shape not in shapes:
            raise ValueError(f"{name}: expected shape {shapes[0]} or {shapes[1]}, got {tuple(value.shape)}")

    def _check(self, batch: PairBatch) -> None:
        likelihood: Any = self._modules["likelihood"]
        expected = (len(batch), *likelihood.event_shape)
        if batch.y is not None and batch.y.shape != expected:
            raise ValueError(f"y: expected shape {expected}, got {tuple(batch.y.shape)}")


class Guide(PyroModule):
    """Draws the latent sites of a :class:`DensityModel` as the model does; it has no parameters of its own."""

    def __init__(self, model: DensityModel) -> None:
        super().__init__()
        self.__dict__["_model"] = model  # not a child: its parameters are the model's

    def forward(self, batch: PairBatch) -> None:
        """Draws ``mixing_coefficient`` and a stochastic ``embedding``."""
        self._model(batch, latent_only=True)


def _first_dtype(network: nn.Module) -> torch.dtype | None:
    """The dtype of the first of ``network.parameters()``, in a tenth of the time: it is asked for in every step."""
    for parameter in network._parameters.values():
        if parameter is not None:
            return parameter.dtype
    found = (_first_dtype(child) for child in network._modules.values() if child is not None)
    return next((dtype for dtype in found if dtype is not None), None)


def _apply(network: nn.Module, value: Tensor, event_dim: int) -> Tensor:
    """``network`` over any number of leading dimensions, for networks that take one."""
    leading = value.shape[: value.dim() - event_dim]
    if len(leading) == 1:
        return network(value)
    output = network(value.flatten(0, len(leading) - 1))
    return output.unflatten(0, leading)
