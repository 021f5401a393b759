"""A conditional density model x → embedding → y, its risk and its predictive."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal, get_args

import pyro
import torch
from torch import Tensor, nn

from pyro_probmix._checks import check_choice, check_integer, check_tensor
from pyro_probmix._random import seeded
from pyro_probmix.distributions import linear_pool
from pyro_probmix.mixing import PairBatch
from pyro_probmix.mixing.batches import check_batch, may_look_at
from pyro_probmix.models import priors
from pyro_probmix.models.decoding import apply, decode_noise
from pyro_probmix.models.laws import LazyDistribution, rsample
from pyro_probmix.models.mix import MixMessenger
from pyro_probmix.models.mixing import Labels, Mixing, draw_shape
from pyro_probmix.models.names import EMBEDDING_SITE, PLATE, UniquelyNamed
from pyro_probmix.models.objectives import Objective, labels_of, reduce
from pyro_probmix.models.statements import PlainStatements, PyroStatements
from pyro_probmix.nn import NormalEmbedding

__all__ = ["DensityModel"]

Propagate = Literal["sample", "mean"]


class DensityModel(UniquelyNamed):
    """Conditional density model with named stages, x → embedding → y, and one of them fused or none.

    Calling it with a batch runs the Pyro model: plate ``data``, in it ``mixing_coefficient``, ``embedding`` where
    there is an encoder, and ``y``. :meth:`risk` evaluates the same statements without Pyro's machinery. The networks
    run outside the plate, so that their weights may have priors: see :meth:`guide_for`.

    Args:
        encoder: x → embedding, a tensor or a distribution; None for the identity.
        decoder: embedding → raw outputs of the likelihood.
        likelihood: raw outputs → distribution of y.
        mixing: what is fused and how; None for nothing.
        propagate: ``"sample"`` draws a stochastic embedding, ``"mean"`` hands its mean on (Theorem 4.7).

    Raises:
        TypeError: if ``likelihood`` does not tell the shape and the support of y, or ``mixing`` is no ``Mixing``.
        ValueError: if ``propagate`` is neither, or ``mixing`` is at a site that the model does not have.
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
        propagate: Propagate = "sample",
    ) -> None:
        super().__init__()
        check_choice("propagate", propagate, get_args(Propagate))
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
    def mixing(self) -> Mixing:
        """What is fused and how."""
        return self.__dict__["mixing"]

    @mixing.setter
    def mixing(self, mixing: Mixing) -> None:
        if not isinstance(mixing, Mixing):
            raise TypeError(f"mixing: expected a Mixing, got {type(mixing).__name__}")
        has_encoder = self._modules.get("encoder") is not None
        sites = ("x", EMBEDDING_SITE, "y") if has_encoder else ("x", "y")
        if mixing.at is not None and mixing.at not in sites:
            why = "" if has_encoder else ", there being no encoder"
            raise ValueError(f"mixing.at: expected one of {', '.join(map(repr, sites))}{why}, got {mixing.at!r}")
        self.__dict__["mixing"] = mixing

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

    @property
    def draws_embedding(self) -> bool:
        """Whether the embedding is drawn: it is a distribution, and not its mean is handed on."""
        return self.stochastic and self.propagate == "sample"

    # The model, stage by stage. The statements are Pyro's, or the plain ones of `risk`.

    def _embed(self, x: Tensor, statements: Any) -> tuple[Tensor, int]:
        """The embedding and its number of event dimensions."""
        event_dim = x.dim() - 1
        if self.mixing.at == "x":
            x = statements.deterministic("x", x, event_dim=event_dim)
        # To Pyro, reading `self.encoder` is a statement that registers its parameters: only where it is called.
        encoder = self._modules.get("encoder")
        if encoder is None:
            return x, event_dim
        if self.stochastic:
            shape: Any = encoder.event_shape
            q = LazyDistribution(lambda: self.encoder(x), x.shape[:1], shape, self.propagate)
            return statements.sample(EMBEDDING_SITE, q), len(q.event_shape)
        z = self.encoder(x)
        return statements.deterministic(EMBEDDING_SITE, z, event_dim=z.dim() - 1), z.dim() - 1

    def _generate(self, batch: PairBatch, statements: Any) -> Tensor:
        z, event_dim = self._embed(batch.x, statements)
        return statements.sample("y", self.likelihood(apply(self.decoder, z, event_dim)), obs=batch.y)

    def forward(self, batch: PairBatch, num_rows: int | None = None, latent_only: bool = False) -> Tensor | None:
        """The generative model (eqs. 12-13, 21-22) as a Pyro program.

        Weights that have priors are drawn first, once for all rows. The density of the embedding is scored where there
        is no guide, as under MCMC, and where a guide of another law has drawn it, such as :class:`PosteriorGuide`; by
        :attr:`guide` it is drawn as here, and the two terms would cancel.

        Args:
            batch: nodes and partners; without ``y`` the model samples it from the fused predictive (eq. 13).
            num_rows: of the data that the batch is a part of, for weights that have priors: the plate has this size,
                and the batch is a subsample. Default: the batch is all.
            latent_only: stop before y, as the guide does.

        Returns:
            y, of shape ``(B,) + event_shape``.
        """
        self.check_batch(batch)
        messenger = MixMessenger(self.mixing, batch, PLATE, latent_only)
        bayesian = priors.has_priors(self)
        with messenger, priors.AttributeNames(self) if bayesian else nullcontext():
            if bayesian:
                priors.draw_weights(self, None if messenger.replay is None else messenger.drawn)
            statements = PyroStatements(messenger, num_rows)
            if not latent_only:
                return self._generate(batch, statements)
            if self.stochastic:
                self._embed(batch.x, statements)
            return None

    @property
    def guide(self) -> priors.Guide:
        """The guide that draws λ and the embedding exactly as the model does; weights with priors: `guide_for`."""
        return priors.Guide(self)

    def guide_for(self, autoguide: Callable[..., Any], **kwargs: Any) -> priors.Guide:
        r"""The guide of a model whose networks have priors: weights by an autoguide, λ and z as :attr:`guide`.

        With q(w) the autoguide's density of all weights that are a ``PyroSample``, and p(w) their prior, the loss of
        ``Trace_ELBO`` is

        .. math:: \frac{N}{B} \sum_{i=1}^B -\mathbb{E}_{q(w)} \log \tilde p_w(\tilde y_i|x_i, x_{j(i)}, \lambda_i)
            + \mathrm{KL}(q(w) \| p(w)),

        B times the risk of eq. 16 (eq. 23 with an embedding), times N / B, and the divergence once. N is ``num_rows``
        of ``svi.step(batch, num_rows=len(x))``. **It has to be given with mini-batches**, since a batch does not know
        what it is a part of: without it N = B, and the prior counts once a batch instead of once an epoch.

        The autoguide meets the weights alone, once and whole, and no rows, so that it needs no ``create_plates``. Its
        parameters are made when it is first called: ``guide(batch)`` before ``torch.optim`` is given parameters of
        ``Trace_ELBO()(model, guide)``. Particles are drawn one by one (``vectorize_particles=False``).
        ``guide.weights`` is the autoguide, ``guide.weights.median(batch)`` has the names of the weights.

        Args:
            autoguide: class of an autoguide, or what makes a guide of the weights from a model of them, called with a
                batch (and ``num_rows``).
            kwargs: of ``autoguide``, such as ``init_scale``.

        Raises:
            TypeError: if ``autoguide`` makes no guide.

        Example:
            >>> from pyro.infer.autoguide import AutoNormal
            >>> from pyro.nn import PyroModule, PyroSample
            >>> network = PyroModule[torch.nn.Linear](2, 2)
            >>> network.weight = PyroSample(dist.Normal(0.0, 1.0).expand([2, 2]).to_event(2))
            >>> model = pm.ProbMix(network, pm.nn.NormalLikelihood())
            >>> guide = model.guide_for(AutoNormal, init_scale=0.01)
            >>> svi = SVI(model, guide, pyro.optim.Adam({"lr": 5e-3}), Trace_ELBO())
            >>> x, y = torch.randn(6, 2), torch.randn(6)
            >>> for batch in pm.PairLoader(x, y, pm.CompleteGraph(6), batch_size=4):
            ...     loss = svi.step(batch, num_rows=len(x))
            >>> guide.weights.median(batch)["decoder.weight"].shape
            torch.Size([2, 2])
        """
        if isinstance(autoguide, nn.Module) or not callable(autoguide):
            raise TypeError(
                "autoguide: expected a class such as AutoNormal, or a function that makes a guide from a model, got "
                f"{type(autoguide).__name__}"
            )
        weights = autoguide(priors.WeightsAlone()(self), **kwargs)
        if not callable(weights):
            raise TypeError(f"autoguide: expected one that makes a guide, got one that makes {type(weights).__name__}")
        return priors.Guide(self, weights)

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
            ValueError: if networks have priors, ``y`` is missing or its shape is not the likelihood's, ``num_samples``
                < 1, ``labels`` or ``objective`` is unknown, ``labels="exact"`` is asked of an objective that draws
                labels, or a tensor's shape is none of these.
        """
        labels = labels_of(objective, labels)
        num_samples = self._check_risk(batch, num_samples, coefficient, noise, label, weight)
        edges = self.mixing.edges(batch, num_samples, coefficient, weight)
        statements = PlainStatements(self.mixing, batch, edges, labels, noise, label)
        self._generate(batch, statements)
        return -reduce(statements.log_prob, objective, edges)

    def _check_risk(
        self, batch: PairBatch, num_samples: int, coefficient: Any, noise: Any, label: Any, weight: Any
    ) -> int:
        """How many samples of each edge the risk takes; arguments that it cannot have are refused."""
        self.check_batch(batch, labelled=True)
        priors.refuse_priors(self, "risk")
        num_samples = check_integer("num_samples", num_samples)
        if coefficient is None:
            num_samples *= self.mixing.num_coefficients
        if noise is not None and not self.draws_embedding:
            raise TypeError(f"noise: expected None, since no embedding is drawn, got {type(noise).__name__}")
        sizes = [(len(batch),), (num_samples, len(batch))]
        for name, value in (("coefficient", coefficient), ("noise", noise), ("label", label), ("weight", weight)):
            if value is None:
                continue
            shapes: list[Any] = sizes[:1] if name == "weight" else sizes
            if name in ("noise", "label"):
                owner = self.encoder if name == "noise" else self.likelihood
                shapes = [(*size, *owner.event_shape) for size in sizes]
            if value.shape not in shapes:
                raise ValueError(f"{name}: expected shape {' or '.join(map(str, shapes))}, got {tuple(value.shape)}")
        if coefficient is not None and may_look_at(coefficient):
            low, high = (-math.inf, math.inf) if self.mixing.extrapolates else (0, 1)
            outside = ~((coefficient >= low) & (coefficient <= high))
            if bool(outside.any()):
                got = coefficient[outside][0].item()
                raise ValueError(f"coefficient: expected numbers in [{low}, {high}], got {got:g}")
        return num_samples

    def check_batch(self, batch: PairBatch, labelled: bool = False) -> None:
        """Refuse what is no batch, or has labels of another shape than the likelihood's, or none where it is to."""
        check_batch(batch)
        if batch.y is None:
            if labelled:
                raise ValueError("batch: expected labels y, got None")
            return
        likelihood: Any = self._modules["likelihood"]
        expected = (len(batch), *likelihood.event_shape)
        if batch.y.shape != expected:
            raise ValueError(f"y: expected shape {expected}, got {tuple(batch.y.shape)}")

    def draw(
        self, batch: PairBatch, num_samples: int = 1, labels: Labels | None = None, parts: bool = False
    ) -> dict[str, Tensor]:
        """The random numbers of :meth:`risk`, ahead of it: those that it would draw in this random state.

        ``model.risk(batch, num_samples, labels, **model.draw(batch, num_samples, labels))`` draws nothing, but what
        the networks draw themselves, and an embedding that is not a :class:`~pyro_probmix.nn.NormalEmbedding` or is
        pooled otherwise than in closed form.

        Args:
            batch: as for :meth:`risk`.
            num_samples: as for :meth:`risk`.
            labels: as for :meth:`risk`.
            parts: leave λ as what it is made from, where that is a Beta of each edge and no label is drawn with it.

        Returns:
            ``coefficient``, ``noise`` and ``label``, as far as this model has them; ``gamma`` and ``uniform`` (see
            :meth:`LogSpaceBeta.rsample_parts <pyro_probmix.distributions.LogSpaceBeta.rsample_parts>`) instead of
            a ``coefficient`` that is left in parts.
        """
        mixing = self.mixing
        shape = draw_shape(num_samples * mixing.num_coefficients, len(batch))
        label_is_drawn = mixing.vicinity is not None and (labels or mixing.labels) == "sample"
        draws: dict[str, Tensor] = {}
        if parts and mixing.is_edgewise_beta and not label_is_drawn:
            draws["gamma"], draws["uniform"] = mixing.law(batch.x).rsample_parts(shape)
        elif mixing.coefficient is not None:
            draws["coefficient"] = mixing.coefficients(batch.x, shape)
        pooled = mixing.at == EMBEDDING_SITE and mixing.fusion != "log-linear"
        noise = None if pooled else self.draw_noise(batch.x, shape)  # others are drawn from otherwise
        if noise is not None:
            draws["noise"] = noise
        if label_is_drawn:
            if batch.y is None:
                raise ValueError("batch: expected labels y, got None")
            support = self.likelihood.support
            draws["label"] = mixing.draw_label(batch.y, batch.partner, draws["coefficient"], support)
        if mixing.num_coefficients > 1:
            del draws["coefficient"]  # not random
        return draws

    def draw_noise(self, x: Tensor, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor | None:
        """Standard normal numbers of shape ``shape + event_shape`` for the embedding of ``x``, None if it takes none.

        They come from the generator, on the device of ``x``, or else from the global random state.
        """
        encoder: Any = self._modules.get("encoder")
        if not isinstance(encoder, NormalEmbedding) or self.propagate == "mean":
            return None
        dtype = _first_dtype(encoder) or x.dtype
        return torch.randn(*shape, *encoder.event_shape, generator=generator, dtype=dtype, device=x.device)

    def predictive(
        self,
        x: Tensor,
        num_samples: int = 100,
        seed: int | None = 0,
        noise: Tensor | None = None,
        guide: Callable[..., Any] | None = None,
    ) -> Any:
        r"""The predictive density p(y|x) as a Pyro distribution of batch shape ``(N,)``.

        Without a stochastic embedding it is the likelihood itself; with one, the equal-weight mixture over embedding
        samples, or the likelihood at the embedding's mean if the model propagates means. With a ``guide`` of weights
        that have priors it is the equal-weight mixture over its draws, of weights and then of an embedding,

        .. math:: p(y|x) \approx \frac1S \sum_{s=1}^S p_{w_s}(y|x, z_s), \qquad
            w_s \sim q(w), \quad z_s \sim q_{w_s}(z|x).

        The networks run once a draw of weights, one after another. Gradients reach x and the networks' own parameters,
        not those of the guide.

        Args:
            x: inputs, of shape ``(N, ...)``.
            num_samples: S ≥ 1, embedding samples a point, or draws of the weights.
            seed: seed of the embedding noise and the weights, the global random state being left alone; None draws from
                that state.
            noise: what a Normal embedding is made from instead, of shape ``(S, N) + event_shape``.
            guide: a trained guide that draws the weights, such as :meth:`guide_for` gives; needed if they have priors.

        Raises:
            TypeError: if there is ``noise`` for an embedding that is not Normal, or beside a ``guide``.
            ValueError: if ``num_samples`` < 1, ``noise`` has another shape, networks have priors and there is no guide,
                or the guide has not been trained or leaves a weight out.

        Example:
            >>> from pyro.infer.autoguide import AutoNormal
            >>> from pyro.nn import PyroModule, PyroSample
            >>> network = PyroModule[torch.nn.Linear](2, 2)
            >>> network.weight = PyroSample(dist.Normal(0.0, 1.0).expand([2, 2]).to_event(2))
            >>> model = pm.ProbMix(network, pm.nn.NormalLikelihood())
            >>> guide = model.guide_for(AutoNormal)
            >>> svi = SVI(model, guide, pyro.optim.Adam({"lr": 5e-3}), Trace_ELBO())
            >>> loss = svi.step(pm.CompleteGraph(4).pair_batch(torch.randn(4, 2), torch.randn(4)))
            >>> model.predictive(torch.zeros(5, 2), num_samples=20, guide=guide)
            LinearPool(batch_shape: (5,), components: 20)
        """
        check_integer("num_samples", num_samples)
        if guide is not None:
            if noise is not None:
                raise TypeError(f"noise: expected None with a guide, got {type(noise).__name__}")
            with seeded(seed, x.device):
                return linear_pool([self._given_weights(x, guide) for _ in range(num_samples)])
        priors.refuse_priors(self, "predictive without a guide")
        if not self.draws_embedding:
            return self._likelihood_at(x)
        q = self.encoder(x)
        if noise is None:
            with seeded(seed, x.device):
                z = rsample(q, torch.Size([num_samples]))
            raw = apply(self.decoder, z.transpose(0, 1), len(q.event_shape))
        else:
            check_tensor("noise", noise, (num_samples, len(x), *q.event_shape))
            raw = decode_noise(self.decoder, q, noise)
        return linear_pool(self.likelihood(raw))

    def _given_weights(self, x: Tensor, guide: Any) -> Any:
        """The likelihood at ``x``, given a draw of the weights and of the embedding."""
        weights = priors.trained_weights(guide, PairBatch(x, None, torch.arange(len(x), device=x.device)))
        # What the networks tell Pyro's parameter store and any handler around stays in here.
        store, given = pyro.get_param_store().scope(), priors.FixedWeights(weights)
        with store, pyro.poutine.block(), given, priors.AttributeNames(self), self._pyro_context:
            return self._likelihood_at(x)

    def _likelihood_at(self, x: Tensor) -> Any:
        """The likelihood at ``x``, given one draw of a stochastic embedding or its mean."""
        z = x if self._modules.get("encoder") is None else self.encoder(x)
        if self.stochastic:
            z = rsample(z) if self.draws_embedding else z.mean
        return self.likelihood(self.decoder(z))


def _first_dtype(network: nn.Module) -> torch.dtype | None:
    """The dtype of the first of ``network.parameters()``, in a tenth of the time: it is asked for in every step."""
    for parameter in network._parameters.values():
        if parameter is not None:
            return parameter.dtype
    found = (_first_dtype(child) for child in network._modules.values() if child is not None)
    return next((dtype for dtype in found if dtype is not None), None)
