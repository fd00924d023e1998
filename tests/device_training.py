"""What is done on two devices, a stand-in or a GPU and the CPU, to see that the same comes out."""

from dataclasses import replace

import numpy as np

from tinytransformer.backend import to_device, to_host
from tinytransformer.candidates import Rest
from tinytransformer.data import make_batch
from tinytransformer.decoding import Sampling, beam_search, greedy, sample
from tinytransformer.gradcheck.check import analytic_gradients, draw
from tinytransformer.optim import Adam
from tinytransformer.progress import READ_EVERY, Standing
from tinytransformer.tensor import OPS
from tinytransformer.training import Replicas, TrainingOptions, train
from tinytransformer.transformer import END

SHAPES = [  # of models: between them all that a model may be made of
    {"dropout": 0.3, "attention_dropout": 0.2, "activation": "relu", "tied_embeddings": True},
    {"norm": "post", "positions": "learned", "activation": "gelu"},
]
OPTIONS = TrainingOptions(steps=2 * READ_EVERY + 5, batch_tokens=60, learning_rate=1e-2, warmup=3, weight_decay=0.01)

FORBIDDEN = [5, 9]  # ids that a model would produce


def shortlists(sources):
    """Return one for each source, some shorter than others."""
    return [np.unique([END, *source, *range(4, 6 + i)]) for i, source in enumerate(sources)]


SEARCHES = {
    "greedy": lambda *arguments: greedy(*arguments, forbidden=FORBIDDEN),
    "beam": lambda *arguments: beam_search(*arguments, beam=3, forbidden=FORBIDDEN),
    "greedy, shortlists": lambda model, sources, limits: greedy(
        model, sources, limits, forbidden=FORBIDDEN, shortlists=shortlists(sources), rest=Rest(model)
    ),
    "beam, shortlists": lambda model, sources, limits: beam_search(
        model, sources, limits, beam=3, forbidden=FORBIDDEN, shortlists=shortlists(sources), rest=Rest(model)
    ),
    "sampling": lambda model, sources, limits: sample(
        model,
        sources,
        limits,
        [np.random.default_rng(i) for i in range(len(sources))],
        Sampling(temperature=0.8, top_k=5, top_p=0.9),
        forbidden=FORBIDDEN,
    ),
}


def results(name, case, device):
    """Return what an operation gives in a case, and its gradients, as arrays of the host."""
    arrays, upstream = draw(OPS[name], case, seed=0)
    y = case.run(OPS[name], [to_device(x, device) for x in arrays]).data
    return [to_host(y), *analytic_gradients(OPS[name], case, arrays, upstream, device)]


def both(make_model, **changes):
    """Return two models with the same weights, on the host and on the device."""
    here = make_model(12, scale=1.0, **changes)
    return here, make_model(12, scale=1.0, device="cuda", **changes)


def step(model, corpus, replicas=1):
    """Return loss and gradient of one batch."""
    parts = [make_batch(corpus.pairs[:20])]
    with Replicas(model, replace(OPTIONS, replicas=replicas), Adam(model.parameters)) as together:
        return together.gradient(parts, parts[0].tokens, 1), model.parameters.grad


def trained(model, corpus, options):
    """Return parameters, moments, where the run stands, what was reported and what the validations were told."""
    optimizer, standing, reports, validations = Adam(model.parameters, weight_decay=0.01), Standing(), [], []
    train(
        model,
        corpus,
        options,
        optimizer=optimizer,
        standing=standing,
        report=reports.append,
        validate=lambda at, loss, speed: validations.append((at, loss)),
    )
    return [model.parameters.data, optimizer.m, optimizer.v], standing, reports, validations
