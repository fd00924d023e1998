"""Decoding in PyTorch with a cache of keys and values, as its users write it, in batches.

The search follows the rules of `tinytransformer.decoding`, so both should find the same translations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F  # noqa: N812

from benchmarks.exporting import require_exportable
from tinytransformer.data import pad
from tinytransformer.decoding import length_penalty
from tinytransformer.layers import sinusoidal_table
from tinytransformer.transformer import BEGIN, END, PAD, Transformer
from tinytransformer.translation import Search, Translator, divide

ALPHA = Search().alpha
BATCH_TOKENS = 4096  # source tokens decoded together, beam included: more make it no faster
LONGEST = 2048  # positions, more than any translation here has


class Cache:
    """The keys and values of one block: of the positions decoded so far, and of the memory. (B, H, T, D / H)"""

    def __init__(self, key: torch.Tensor, value: torch.Tensor):
        self.memory = key, value
        self.own = key[:, :, :0], value[:, :, :0]

    def extend(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.own = torch.cat([self.own[0], key], dim=2), torch.cat([self.own[1], value], dim=2)
        return self.own


class Model:
    """A pre-norm model in PyTorch functions, over copies of the weights of `model`."""

    def __init__(self, model: Transformer):
        require_exportable(model.config)
        self.config = model.config
        self.weights: dict[str, torch.Tensor] = {}
        for name, parameter in model.parameters.named.items():
            turned = parameter.data.T if name.endswith(".weight") else parameter.data  # PyTorch has outputs first
            self.weights[name] = torch.from_numpy(turned.copy())
        for name in list(self.weights):
            if name.endswith("attention.key.weight"):
                self._fuse(name.removesuffix("key.weight"))
        self.table = self.weights["encoder.embedding.table"]
        self.positions = torch.from_numpy(sinusoidal_table(LONGEST, self.config.width)).float()

    def _fuse(self, attention: str) -> None:
        """Make one product of the projections of the same features, as torch.nn.MultiheadAttention does."""
        parts = ("query", "key", "value") if attention.endswith("self_attention.") else ("key", "value")
        for kind in ("weight", "bias"):
            together = [self.weights[f"{attention}{part}.{kind}"] for part in parts]
            self.weights[f"{attention}fused.{kind}"] = torch.cat(together)

    def encode(self, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T) of ids -> the memory (B, T, D) and its mask (B, 1, 1, T), True on real tokens"""
        mask = (source != PAD)[:, None, None, :]
        x = self._embed(source, 0)
        for i in range(self.config.encoder_layers):
            block = f"encoder.blocks.{i}."
            query, key, value = self._project(self._norm(x, f"{block}self_attention_norm"), f"{block}self_attention")
            x = x + self._attend(query, key, value, mask, f"{block}self_attention")
            x = x + self._feed_forward(x, block)
        return self._norm(x, "encoder.norm"), mask

    def new_cache(self, memory: torch.Tensor) -> list[Cache]:
        """Return the caches of all blocks, with the keys and values of the memory."""
        blocks = range(self.config.decoder_layers)
        return [Cache(*self._project(memory, f"decoder.blocks.{i}.cross_attention")) for i in blocks]

    def decode(self, ids: torch.Tensor, first: int, mask: torch.Tensor, caches: list[Cache]) -> torch.Tensor:
        """(B,) of the newest ids, at position `first` -> the features of their positions, (B, D)"""
        x = self._embed(ids[:, None], first)
        for i, cache in enumerate(caches):
            block = f"decoder.blocks.{i}."
            query, key, value = self._project(self._norm(x, f"{block}self_attention_norm"), f"{block}self_attention")
            x = x + self._attend(query, *cache.extend(key, value), None, f"{block}self_attention")
            query = self._heads(
                self._linear(self._norm(x, f"{block}cross_attention_norm"), f"{block}cross_attention.query")
            )
            x = x + self._attend(query, *cache.memory, mask, f"{block}cross_attention")
            x = x + self._feed_forward(x, block)
        return self._norm(x, "decoder.norm")[:, 0]

    def _embed(self, ids: torch.Tensor, first: int) -> torch.Tensor:
        positions = self.positions[first : first + ids.shape[1]]
        return F.embedding(ids, self.table) * math.sqrt(self.config.width) + positions

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, (self.config.width,), self.weights[f"{name}.gain"], self.weights[f"{name}.bias"])

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, D) -> (B, H, T, D / H)"""
        return x.unflatten(2, (self.config.heads, -1)).transpose(1, 2)

    def _project(self, x: torch.Tensor, name: str) -> list[torch.Tensor]:
        """Return the heads of all that is made of x in one product: query, key and value, or key and value."""
        return [self._heads(part) for part in self._linear(x, f"{name}.fused").split(self.config.width, dim=2)]

    def _attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, name: str
    ) -> torch.Tensor:
        heads = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self._linear(heads.transpose(1, 2).flatten(2), f"{name}.output")

    def _feed_forward(self, x: torch.Tensor, block: str) -> torch.Tensor:
        hidden = F.relu(self._linear(self._norm(x, f"{block}feed_forward_norm"), f"{block}feed_forward.expand"))
        return self._linear(hidden, f"{block}feed_forward.contract")


class Decoder:
    """Translates ids into ids, greedily or by beam search."""

    def __init__(self, translator: Translator):
        self.model = Model(translator.model)
        self.limit = translator.limit
        self.banned = torch.zeros(len(self.model.table))
        self.banned[translator.forbidden] = -math.inf
        self.shortlist, self.rest = translator.shortlist, translator.rest

    @torch.inference_mode()
    def translate(self, sources: Sequence[Sequence[int]], beam: int) -> list[list[int]]:
        """Return the best translation of each source, in batches of about equal length."""
        found: list[list[int]] = [[] for _ in sources]
        order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
        for batch in divide(order, sources, BATCH_TOKENS // beam):
            search = _Search(self, [sources[i] for i in batch], beam)
            for i, ids in zip(batch, search.greedy() if beam == 1 else search.beam_search(), strict=True):
                found[i] = ids
        return found


class _Vocabulary:
    """Projects to all tokens: of every sentence the same."""

    def __init__(self, decoder: Decoder):
        self.table, self.banned = decoder.model.table, decoder.banned

    def log_probabilities(self, features: torch.Tensor) -> torch.Tensor:
        """(S, K, D) -> (S, K, V)"""
        return F.log_softmax(F.linear(features, self.table), dim=-1) + self.banned

    def tokens_at(self, places: torch.Tensor) -> torch.Tensor:
        """Return the ids of places in the last axis, (S, K)."""
        return places

    def keep(self, stay: torch.Tensor) -> None:
        """Go on with these sentences."""


class _Shortlists(_Vocabulary):
    """Projects to the tokens on the shortlist of each sentence, as `candidates.Shortlisted` does."""

    def __init__(self, decoder: Decoder, sources: list[Sequence[int]]):
        assert decoder.shortlist is not None
        assert decoder.rest is not None
        allowed = [ids[decoder.banned.numpy()[ids] == 0] for ids in map(decoder.shortlist.of, sources)]
        lengths = torch.tensor([len(ids) for ids in allowed])
        self.tokens = torch.from_numpy(pad(allowed))
        self.projection = decoder.model.table[self.tokens].transpose(1, 2).contiguous()
        self.hidden = (torch.arange(self.tokens.shape[1]) < lengths[:, None]).log()[:, None]
        self.others = (len(decoder.model.table) - lengths).log()[:, None, None]
        self.rest = decoder.rest.of_one

    def log_probabilities(self, features: torch.Tensor) -> torch.Tensor:
        """(S, K, D) -> (S, K, n)"""
        logits = features @ self.projection + self.hidden
        rest = self.others + torch.from_numpy(self.rest(features.numpy()))
        return logits - torch.logaddexp(logits.logsumexp(dim=-1, keepdim=True), rest)

    def tokens_at(self, places: torch.Tensor) -> torch.Tensor:
        return self.tokens.gather(1, places)

    def keep(self, stay: torch.Tensor) -> None:
        self.tokens, self.projection = self.tokens[stay], self.projection[stay]
        self.hidden, self.others = self.hidden[stay], self.others[stay]


class _Search:
    """One batch: a row for each sentence, after the first step of a beam search `beam`, and what is known of them."""

    def __init__(self, decoder: Decoder, sources: list[Sequence[int]], beam: int):
        self.model, self.beam = decoder.model, beam
        self.candidates = _Shortlists(decoder, sources) if decoder.shortlist else _Vocabulary(decoder)
        self.limits = torch.tensor([decoder.limit(len(source)) for source in sources])
        memory, self.mask = self.model.encode(torch.from_numpy(pad([[*source, END] for source in sources])))
        self.caches = self.model.new_cache(memory)
        self.length = 0

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """(S, K) of the newest tokens -> the log-probabilities of the next, (S, K, V)"""
        self.length += 1
        features = self.model.decode(tokens.flatten(), self.length - 1, self.mask, self.caches)
        return self.candidates.log_probabilities(features.view(*tokens.shape, -1))

    def select(self, rows: torch.Tensor, kept: torch.Tensor | None) -> None:
        """Go on with these rows, in this order; of the memory with `kept`: a sentence has it once for each row."""
        for cache in self.caches:
            cache.own = cache.own[0][rows], cache.own[1][rows]
        if kept is not None:
            self.mask = self.mask[kept]
            for cache in self.caches:
                cache.memory = cache.memory[0][kept], cache.memory[1][kept]

    def greedy(self) -> list[list[int]]:
        """Take the most probable token, again and again, until END or the limit."""
        found: list[list[int]] = [[] for _ in self.limits]
        live, tokens = torch.arange(len(found)), torch.full((len(found),), BEGIN)
        while len(live):
            tokens = self.candidates.tokens_at(self.step(tokens[:, None]).argmax(dim=-1))[:, 0]
            for sentence, token in zip(live.tolist(), tokens.tolist(), strict=True):
                if token != END:
                    found[sentence].append(token)
            going_on = (tokens != END) & (self.length < self.limits[live])
            if not going_on.all():
                stay = going_on.nonzero()[:, 0]
                self.select(stay, stay)
                self.candidates.keep(stay)
                live, tokens = live[stay], tokens[stay]
        return found

    def beam_search(self) -> list[list[int]]:
        """Follow the `beam` best beginnings, until none can become better than the best that has ended."""
        found: list[tuple[bool, float, list[int]]] = [(False, -math.inf, [])] * len(self.limits)  # finished, score, ids
        penalties = torch.tensor([length_penalty(limit, ALPHA) for limit in self.limits.tolist()])
        live, tokens = torch.arange(len(found)), torch.full((len(found), 1), BEGIN)
        totals, history = torch.zeros(len(found), 1), torch.zeros(len(found), 1, 0, dtype=torch.long)
        while len(live):
            width = totals.shape[1]
            sums = self.step(tokens) + totals[..., None]
            totals, index = sums.flatten(1).topk(min(self.beam, sums[0].numel()))
            parent, token = index // sums.shape[2], self.candidates.tokens_at(index % sums.shape[2])
            begun = torch.take_along_dim(history, parent[..., None], dim=1)
            history = torch.cat([begun, token[..., None]], dim=2)
            end = token == END
            stopped = (end | (self.length == self.limits[live])[:, None]) & (totals > -math.inf)
            for row, k in stopped.nonzero().tolist():
                score = float(totals[row, k]) / length_penalty(self.length, ALPHA)
                ids = history[row, k, : -1 if end[row, k] else None].tolist()
                found[live[row]] = max(found[live[row]], (bool(end[row, k]), score, ids), key=lambda f: f[:2])
            totals[stopped] = -math.inf
            best = [found[i] for i in live.tolist()]
            to_beat = torch.tensor([score if finished else -math.inf for finished, score, _ in best])
            stay = (totals.amax(dim=1) / penalties[live] > to_beat).nonzero()[:, 0]
            rows = (torch.arange(len(live))[:, None] * width + parent)[stay].flatten()
            self.select(rows, rows if len(stay) < len(live) or width < self.beam else None)
            if len(stay) < len(live):
                self.candidates.keep(stay)
            live, totals, history = live[stay], totals[stay], history[stay]
            tokens = history[:, :, -1]
        return [ids for _, _, ids in found]
