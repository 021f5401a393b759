"""Training with Lightning: many processes, loggers, callbacks, mixed precision; needs the extra ``lightning``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_probmix._checks import check_integer, check_number
from pyro_probmix._random import derived_seed, random_state, seed_generators, set_random_state
from pyro_probmix.mixing import CompleteGraph, PairBatch, PairLoader, SamplingGraph
from pyro_probmix.models import DensityModel
from pyro_probmix.models.priors import refuse_priors
from pyro_probmix.ops.autocast import without_autocast
from pyro_probmix.training.data import check_labels, check_model, check_validation
from pyro_probmix.training.history import VALIDATION_SAMPLES

with warnings.catch_warnings():  # Lightning installs filters of its own where it is imported
    from lightning import Callback, LightningDataModule, LightningModule

__all__ = ["PairDataModule", "ProbMixModule"]


class ProbMixModule(LightningModule):
    r"""A model of this library as a Lightning module: its risk is the training loss, its NLL the validation loss.

    Mixing happens in the training step, on the device. λ, labels and embeddings are drawn from ``(seed, process,
    epoch)``: no two processes repeat each other's draws, whatever seed is global, and the global random state is put
    back after training. Gradients are averaged over processes, as Lightning's strategies do: with shards of one size
    they are those of the joint batch. What is logged is ``train_loss`` and ``val_loss``, both in nats.

    Under Lightning's ``ModelParallelStrategy`` the parameters, their gradients and the optimiser's state are sharded
    over its data-parallel processes (FSDP2), on CPUs (``process_group_backend="gloo"``) and GPUs. The parameters of the
    model are ``DTensor`` then, also after training, and every process has to take part in a prediction. Its
    ``tensor_parallel_size``, by default the number of processes, has to be one.

    Args:
        model: any ready model, such as :class:`~pyro_probmix.ProbMix`; trained in place.
        learning_rate: Adam's step size, positive; not used with an ``optimizer``.
        num_samples: K of eq. 16.
        seed: seed of everything that is drawn in training.
        optimizer: makes the optimiser from the parameters; default: Adam.
        scheduler: makes a learning-rate schedule from the optimiser, stepped once an epoch.

    Raises:
        TypeError: if ``num_samples`` is no integer.
        ValueError: if networks have priors, a number is out of range, or, in training, a strategy would divide tensors.

    Example:
        >>> likelihood = pm.nn.NormalLikelihood()
        >>> module = ProbMixModule(pm.ProbMix(pm.nn.MLP(1, [8], 2), likelihood))
        >>> x = torch.linspace(-1, 1, 64).unsqueeze(-1)
        >>> data = PairDataModule(x, x.squeeze(-1), batch_size=16)
        >>> from lightning import Trainer
        >>> Trainer(max_epochs=2).fit(module, data)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: DensityModel,
        learning_rate: float = 5e-3,
        num_samples: int = 1,
        seed: int = 0,
        optimizer: Callable[[Any], Optimizer] | None = None,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    ) -> None:
        super().__init__()
        check_model("model", model)
        check_number("learning_rate", learning_rate)
        refuse_priors(model, "ProbMixModule")
        self.model, self.learning_rate, self.seed = model, learning_rate, seed
        self.num_samples = check_integer("num_samples", num_samples)
        self._make_optimizer, self._make_scheduler = optimizer, scheduler
        self._random_state: dict[str, Tensor] = {}

    def configure_model(self) -> None:
        if self.device_mesh is None:
            return
        size = self.device_mesh["tensor_parallel"].size()
        if size > 1:
            raise ValueError(
                f"strategy: expected tensor_parallel_size=1, since every process has rows of its own, got {size}"
            )
        from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method  # of torch 2.6

        if not isinstance(self.model, FSDPModule):
            fully_shard(self.model, mesh=self.device_mesh["data_parallel"])
            for name in ("risk", "predictive"):
                register_fsdp_forward_method(self.model, name)

    def forward(self, x: Tensor) -> Any:
        """The predictive density at ``x``, of batch shape ``(N,)``."""
        return self.model.predictive(x)

    def training_step(self, batch: PairBatch, batch_index: int) -> Tensor:
        loss = self.model.risk(batch, self.num_samples)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch), sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        x, y = batch
        p = self.model.predictive(x, num_samples=VALIDATION_SAMPLES)
        with without_autocast(y):
            loss = -p.log_prob(y).mean()
        self.log("val_loss", loss, on_epoch=True, batch_size=len(x), sync_dist=True, prog_bar=True)

    def configure_optimizers(self) -> Any:
        parameters = [p for p in self.parameters() if p.requires_grad]
        make = self._make_optimizer or (lambda p: torch.optim.Adam(p, lr=self.learning_rate))
        optimizer = make(parameters)
        if self._make_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self._make_scheduler(optimizer)}}

    def on_train_start(self) -> None:
        self._random_state = random_state(self.device)

    def on_train_epoch_start(self) -> None:
        seed_generators(derived_seed(self.seed, self.global_rank, self.current_epoch), self.device)

    def on_train_end(self) -> None:
        self.restore_random_state()
        if self.device_mesh is not None:
            self.model.reshard()  # a validation leaves them whole

    def configure_callbacks(self) -> list[Callback]:
        return [_RestoreOnException()]

    def restore_random_state(self) -> None:
        """Put the global random state back to what it was before training."""
        set_random_state(self._random_state)
        self._random_state = {}


class _RestoreOnException(Callback):
    """Puts the random state back where training ends early: of this, Lightning tells callbacks only."""

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        pl_module.restore_random_state()


class PairDataModule(LightningDataModule):
    """Pairs for :class:`ProbMixModule`: every process has a shard of the rows, and pairs within it.

    Process r of R has the rows r, r + R, r + 2R, ... up to N // R of them, so that shards are of one size and no pair
    crosses processes. The pairs of an epoch are drawn from ``(seed, process, epoch)``.

    Args:
        x: training inputs, of shape ``(N, ...)``.
        y: training labels, of shape ``(N,) + event_shape``.
        graph: makes the graph of a shard from its inputs, such as :class:`~pyro_probmix.NearestNeighborGraph`;
            default: the complete graph.
        batch_size: nodes a step and process; default: the whole shard.
        validation: inputs and labels, all of which every process evaluates.
        seed: seed of the pairs and of the order of the data.

    Raises:
        TypeError: if x or y is not a tensor, or ``batch_size`` no integer.
        ValueError: if x or y has NaN or inf (rows are named), or lengths do not match.

    Example:
        >>> data = PairDataModule(torch.randn(10, 2), torch.randn(10), batch_size=4)
        >>> [len(batch) for batch in data.train_dataloader()]
        [4, 4, 2]
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        graph: Callable[[Tensor], SamplingGraph] | None = None,
        batch_size: int | None = None,
        validation: tuple[Tensor, Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        PairLoader(x, y, CompleteGraph(len(x)), batch_size)  # refuses bad data in the process that has them
        self.x, self.y, self.graph, self.batch_size = x, y, graph, batch_size
        self.validation, self.seed = validation, seed
        self._loader: _EpochLoader | None = None
        if validation is not None:  # to Lightning, a class that has the method has validation data
            self.val_dataloader = self._validation_loader  # type: ignore[method-assign]

    def setup(self, stage: str | None = None) -> None:
        model = getattr(getattr(self.trainer, "lightning_module", None), "model", None)
        if isinstance(model, DensityModel):
            check_labels("y", self.y, model)
            if self.validation is not None:
                check_validation(self.validation, model)

    def train_dataloader(self) -> _EpochLoader:
        """The loader of this process: :class:`~pyro_probmix.PairBatch` of its shard, drawn anew each epoch."""
        if self._loader is None or self._loader.trainer is not self.trainer:
            rank, size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
            rows = slice(rank, len(self.x) // size * size, size)
            x, y = self.x[rows], self.y[rows]
            if len(x) == 0:
                raise ValueError(f"x: expected at least {size} rows, one a process, got {len(self.x)}")
            graph = CompleteGraph(len(x)) if self.graph is None else self.graph(x)
            self._loader = _EpochLoader(PairLoader(x, y, graph, self.batch_size), self.seed, rank, self.trainer)
        return self._loader

    def _validation_loader(self) -> Any:
        assert self.validation is not None
        return _Single(self.validation)


class _EpochLoader:
    """A loader whose draws are those of its epoch, which the trainer knows, also after an interruption."""

    def __init__(self, loader: PairLoader, seed: int, rank: int, trainer: Any) -> None:
        self.loader, self.seed, self.rank, self.trainer = loader, seed, rank, trainer
        loader.generator = torch.Generator()

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[PairBatch]:
        assert self.loader.generator is not None
        if self.trainer is not None:
            self.loader.epoch = self.trainer.current_epoch
        # The pairs' numbers are not those that the training step draws λ from.
        self.loader.generator.manual_seed(derived_seed(self.seed, self.rank, self.loader.epoch, 1))
        return iter(self.loader)


class _Single:
    """An iterable of one batch; Lightning takes lists and tuples for several loaders."""

    def __init__(self, batch: tuple[Tensor, Tensor]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter((self.batch,))
