"""Models as folders: what is loaded predicts as what was saved, and is refused by name where it is not that."""

from __future__ import annotations

import subprocess
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn
from torch.distributions import constraints

import pyro_probmix as pm
from pyro_probmix.persistence import SETTINGS

X = torch.linspace(-2.0, 2.0, 18).reshape(6, 3)
BETA, LAW = dist.Beta(0.2, 0.2), pm.GaussJacobi(0.3)


def mlp(outputs: int, inputs: int = 3, **options) -> pm.nn.MLP:
    return pm.nn.MLP(inputs, [8, 5], outputs, **options)


def encoder() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh())


NORMAL = pm.nn.NormalLikelihood
MODELS = {
    "ERM": lambda: pm.ERM(mlp(2), NORMAL()),
    "ERM with smoothed labels": lambda: pm.ERM(
        mlp(3), pm.nn.CategoricalLikelihood(3), pm.LabelVicinity.smoothing(0.1, 3)
    ),
    "Mixup": lambda: pm.Mixup(mlp(2, activation=nn.ELU), NORMAL(), BETA, per="batch"),
    "Mixup of classes": lambda: pm.Mixup(mlp(3), pm.nn.CategoricalLikelihood(3)),
    "ManifoldMixup": lambda: pm.ManifoldMixup(encoder(), mlp(2, 4), NORMAL(), dist.Delta(torch.tensor(0.3))),
    "ProbMix": lambda: pm.ProbMix(mlp(2), NORMAL(), dist.Beta(0.2, 0.4), pm.NormalVicinity(0.01), labels="sample"),
    "ProbMix that extrapolates": lambda: pm.ProbMix(
        mlp(2), NORMAL(min_scale=0.2), pm.ExpandedBeta(2.0, 2.0, -0.1, 1.1), pm.NormalVicinity(0.01)
    ),
    "ProbMix by quadrature": lambda: pm.ProbMix(
        mlp(2),
        pm.nn.DistributionLikelihood(dist.StudentT, df=torch.tensor(4.0)),
        pm.GaussJacobi(0.3),
        fusion="numerical",
    ),
    "ProbMix of classes": lambda: pm.ProbMix(
        mlp(3, output_activation=nn.Tanh), pm.nn.CategoricalLikelihood(3), None, pm.LabelVicinity(0.1, 3, "log-linear")
    ),
    "ProbMix of counts": lambda: pm.ProbMix(mlp(1), pm.nn.DistributionLikelihood(dist.Poisson), fusion="linear"),
    "ProbMix of several outputs": lambda: pm.ProbMix(mlp(4), NORMAL((2, 2), homoscedastic=True)),
    "ManifoldProbMix": lambda: pm.ManifoldProbMix(pm.nn.NormalEmbedding(encoder(), 4), mlp(2, 4), NORMAL()),
    "ManifoldProbMix*": lambda: pm.ManifoldProbMix(
        pm.nn.NormalEmbedding(encoder(), 4, mlp(4), initial_scale=0.3), mlp(2, 4), NORMAL()
    ),
    "ManifoldProbMix of means": lambda: pm.ManifoldProbMix(
        pm.nn.NormalEmbedding(encoder(), 4, scale=0.2), mlp(2, 4), NORMAL(), propagate="mean", fusion="linear"
    ),
    "ManifoldProbMix of low rank": lambda: pm.ManifoldProbMix(
        pm.nn.LowRankNormalEmbedding(encoder(), 4, 2), mlp(2, 4), NORMAL()
    ),
    "ManifoldProbMix of Gammas": lambda: pm.ManifoldProbMix(
        pm.nn.DistributionEmbedding(mlp(8), dist.Gamma, 4), mlp(2, 4), NORMAL()
    ),
    "multivariate": lambda: pm.ERM(mlp(5), pm.nn.DistributionLikelihood(dist.MultivariateNormal, 2)),
    "fixed tensors": lambda: pm.ERM(
        mlp(1), pm.nn.DistributionLikelihood(dist.Binomial, total_count=torch.tensor(9.0)), pm.DiracVicinity("linear")
    ),
}
"""Ready models with each of their options."""


def same_predictions(one, two, x=X) -> bool:
    p, q = (model.predictive(x, num_samples=7) for model in (one, two))
    y = p.sample()
    return torch.equal(p.log_prob(y), q.log_prob(y)) and type(p) is type(q)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_ready_model_is_made_again(name, dtype, tmp_path):
    model = MODELS[name]().to(dtype)
    pm.save(model, tmp_path / "model")
    state = torch.get_rng_state()
    loaded = pm.load(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), state)
    assert type(loaded) is type(model)
    assert repr(loaded) == repr(model)
    ours, theirs = vars(loaded.mixing), vars(model.mixing)
    assert all(repr(ours[k]) == repr(v) for k, v in theirs.items() if not k.startswith("_") and k != "coefficient")
    assert same_predictions(loaded, model, X.to(dtype))


@pytest.mark.parametrize("name", ["Mixup", "ProbMix that extrapolates", "ProbMix by quadrature", "ManifoldMixup"])
def test_the_law_of_the_coefficient_is_kept(name, tmp_path):
    model = MODELS[name]()
    pm.save(model, tmp_path / "model")
    loaded = pm.load(tmp_path / "model")
    batch = pm.CompleteGraph(6).pair_batch(X, torch.linspace(0.1, 1, 6))
    risks = []
    for one in (model, loaded):
        torch.manual_seed(0)
        risks.append(one.risk(batch))
    assert torch.equal(*risks)


def test_a_loaded_model_is_trained_on(tmp_path):
    model = MODELS["ManifoldProbMix"]()
    pm.save(model, tmp_path / "model")
    y = X[:, 0]
    for one in (model, pm.load(tmp_path / "model")):
        pm.fit(one, (X, y), epochs=3, seed=1, progress=False)
        pm.save(one, tmp_path / "trained", overwrite=True)
    assert same_predictions(model, one)
    assert same_predictions(model, pm.load(tmp_path / "trained"))


NETWORKS = {
    "layers": lambda: nn.Sequential(
        nn.Linear(3, 4, bias=False), nn.LayerNorm(4), nn.GELU(), nn.PReLU(), nn.Linear(4, 2)
    ),
    "running means": lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2), nn.Dropout(0.5)),
    "convolutions": lambda: nn.Sequential(
        nn.Unflatten(-1, (1, 3)), nn.Conv1d(1, 2, 2, padding=1), nn.Flatten(), nn.RMSNorm(8)
    ),
    "perceptron": lambda: mlp(2),
    "one layer": lambda: pm.nn.MLP(3, [], 2),
    "LSTM": lambda: nn.Sequential(nn.Unflatten(-1, (3, 1)), pm.nn.LSTMBackbone(1, 4, 2)),
    "transformer": lambda: nn.Sequential(nn.Unflatten(-1, (3, 1)), pm.nn.TransformerBackbone(1, 4, causal=True)),
    "rescaled": lambda: pm.nn.RescaledNetwork(mlp(2), 0.7, torch.ones(3), torch.ones(1)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_listed_layers_is_made_again(name, tmp_path):
    network = NETWORKS[name]()
    network(X)  # which moves running means
    network.eval()
    next(network.parameters()).requires_grad_(False)
    pm.save(network, tmp_path / "network")
    loaded = pm.load(tmp_path / "network")
    assert type(loaded) is type(network)
    assert repr(loaded) == repr(network)
    assert not loaded.training
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in network.parameters()]
    assert torch.equal(loaded(X), network(X))


class Own(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, width), nn.Linear(width, 2)
        self.register_buffer("steps", torch.tensor([3, 4]))
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("causal", torch.tensor([0.0, -torch.inf]))

    def forward(self, x):
        return self.last(self.first(x).tanh())


class Positive(PyroModule):
    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.scale = PyroParam(torch.tensor(value), constraint=constraints.positive)

    def forward(self, x):
        return self.linear(x) * self.scale


def normed() -> nn.Sequential:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.Linear(4, 2))


def tied() -> nn.Sequential:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Linear(3, 2))


@pytest.mark.parametrize("make", [Own, Positive, normed, tied])
def test_any_other_network_is_filled(make, tmp_path):
    model = pm.ERM(make(), NORMAL())
    svi = SVI(model, model.guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    for _ in range(3):
        svi.step(pm.CompleteGraph(6).pair_batch(X, X[:, 0]))
    pm.save(model, tmp_path / "model")
    with pytest.raises(ValueError, match="into=, a model to fill"):
        pm.load(tmp_path / "model")
    other = pm.ERM(make(), NORMAL())
    assert not same_predictions(other, model)
    assert pm.load(tmp_path / "model", into=other) is other
    assert same_predictions(other, model)
    assert [(k, v.dtype) for k, v in other.state_dict().items()] == [
        (k, v.dtype) for k, v in model.state_dict().items()
    ]


def test_into_is_checked_before_it_is_changed(tmp_path):
    pm.save(Own(), tmp_path / "model")
    wide, double, other = Own(5), Own().double(), nn.Linear(3, 2)
    before = [p.clone() for p in wide.parameters()]
    for into, expected in (
        (wide, r"expected first.weight of shape \(5, 3\), as in into, got \(4, 3\)"),
        (double, "expected .* of torch.float64, as in into, got torch.float32"),
        (other, r"expected weight of shape \(2, 3\), as in into, got none"),
    ):
        with pytest.raises(ValueError, match=expected):
            pm.load(tmp_path / "model", into=into)
    assert all(map(torch.equal, before, wide.parameters()))
    with pytest.raises(TypeError, match=r"into: expected an nn.Module"):
        pm.load(tmp_path / "model", into={})
    with pytest.raises(ValueError, match=r"into: expected a module whose weights have memory"):
        pm.load(tmp_path / "model", into=Own().to("meta"))


def test_what_cannot_be_saved_is_refused_by_name(tmp_path):
    network = PyroModule[nn.Linear](3, 2)
    network.weight = PyroSample(dist.Normal(0.0, 1.0).expand([2, 3]).to_event(2))
    broken = nn.Linear(3, 2)
    broken.weight.data[0, 0] = torch.nan
    with_priors = pm.ERM(network, NORMAL())
    for model, kind, expected in (
        (with_priors, ValueError, "expected networks without priors in save, got priors of decoder.weight"),
        (broken, ValueError, "expected finite weights, got NaN or inf in weight"),
        (nn.LazyLinear(2), ValueError, "expected weights that have values, got none yet of weight"),
        (nn.ReLU(), ValueError, "expected one with weights, got a ReLU without"),
        ({"a": 1}, TypeError, r"expected an nn.Module, ProbMixClassifier, ProbMixRegressor, got dict"),
    ):
        with pytest.raises(kind, match=expected):
            pm.save(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_trained_guide_is_filled(tmp_path):
    network = PyroModule[nn.Linear](3, 2)
    network.weight = PyroSample(dist.Normal(0.0, 1.0).expand([2, 3]).to_event(2))
    model = pm.ERM(network, NORMAL())
    batch = pm.CompleteGraph(6).pair_batch(X, X[:, 0])
    guides = []
    for seed in range(2):
        torch.manual_seed(seed)
        guides.append(model.guide_for(AutoNormal))
        SVI(model, guides[-1], pyro.optim.Adam({"lr": 0.1}), Trace_ELBO()).step(batch)
    pm.save(guides[0], tmp_path / "guide")
    pm.load(tmp_path / "guide", into=guides[1])
    one, two = (model.predictive(X, 5, guide=guide).mean for guide in guides)
    assert torch.equal(one, two)


def test_what_is_there_is_kept(tmp_path):
    model = MODELS["ERM"]()
    (tmp_path / "empty").mkdir()
    pm.save(model, tmp_path / "empty")
    with pytest.raises(FileExistsError, match="got one with a model; overwrite=True replaces it"):
        pm.save(model, tmp_path / "empty")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("mine", "file"):
        with pytest.raises(FileExistsError, match="got something else, which is kept"):
            pm.save(model, tmp_path / name, overwrite=True)
    assert (tmp_path / "mine" / "notes.txt").read_text() == (tmp_path / "file").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "file", "mine"]
    assert sorted(p.name for p in (tmp_path / "empty").iterdir()) == [SETTINGS, "weights.safetensors"]


def test_a_disk_that_is_full_leaves_nothing_behind(tmp_path):
    """A limit of the size of files stands for it, in a process of its own."""
    script = (
        "import resource, sys, torch, pyro_probmix as pm\n"
        "likelihood = pm.nn.NormalLikelihood()\n"
        "model = pm.ERM(pm.nn.MLP(100, [100], likelihood.num_outputs), likelihood)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n    pm.save(model, sys.argv[1])\n"
        "except OSError as error:\n    print(error)\n"
    )
    pytest.importorskip("resource", reason="this system has no limits of files")
    command = [sys.executable, "-c", script, str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(f"{tmp_path / 'model'}: "), done.stderr
    assert not list(tmp_path.iterdir())


def test_who_may_read_settings_may_read_weights(tmp_path):
    pm.save(MODELS["ERM"](), tmp_path / "model")
    assert len({path.stat().st_mode for path in (tmp_path / "model").iterdir()}) == 1


def test_a_rescaled_model_and_one_in_half_precision_are_made_again(tmp_path):
    rescaled = pm.rescaled(MODELS["Mixup"](), X, X[:, 0])
    half = MODELS["ManifoldProbMix"]().to(torch.bfloat16)
    for name, model, x in (("rescaled", rescaled, X), ("half", half, X.to(torch.bfloat16))):
        pm.save(model, tmp_path / name)
        assert same_predictions(pm.load(tmp_path / name), model, x)


def test_a_model_is_put_on_a_device(tmp_path):
    pm.save(MODELS["ManifoldProbMix"](), tmp_path / "model")
    assert {p.device.type for p in pm.load(tmp_path / "model", device="meta").parameters()} == {"meta"}
    with pytest.raises(ValueError, match="device: expected one that is here"):
        pm.load(tmp_path / "model", device="abacus")


def test_a_model_that_is_changed_from_outside_is_not_made_again(tmp_path):
    network = mlp(2)
    network.register_forward_hook(lambda module, inputs, output: 2 * output)
    padded = nn.Sequential(nn.Conv1d(3, 2, 2, padding=1, padding_mode="circular"))
    mixed = MODELS["Mixup"]()
    mixed.mixing = pm.models.mixing.Mixing("y", BETA, pm.NormalVicinity(0.1))
    half_trained = pm.ERM(mlp(2), NORMAL())
    half_trained.decoder.eval()
    for name, model, expected in (
        ("hook", pm.ERM(network, NORMAL()), "decoder is a MLP with hooks"),
        ("padding", padded, "0 is a Conv1d with another padding than zeros"),
        ("mixing", mixed, "Mixup is mixed at 'y'"),
        ("mode", half_trained, "some of its modules are in training"),
    ):
        pm.save(model, tmp_path / name)
        with pytest.raises(ValueError, match=f"into=, a model to fill with the weights of .*{expected}"):
            pm.load(tmp_path / name)
