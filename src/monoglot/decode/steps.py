"""A search's way through the decoder, one token of every beam at a time.

ids of the last step -> embed -> decoder layers (their past, the memory) -> states that predict the next token

PlainSteps   asks `UnifiedModel.decode`; each beam has its own copy of all it reads. What FoldedSteps is tested against.
FoldedSteps  runs the same layers over [R, K, D]: the beams of a row are queries side by side. So
             - keys and values of the memory are computed and kept once a row, whatever the beam;
             - each token's keys and values are written once, into the row's next free slots, and never move. Which slots
               belong to a beam's own past is a mask, and when beams are reordered, only the mask is;
             - biases of positions and relations are the same for all beams; they are made for many places ahead at once.

Letters: R rows, K beams of a row, N = R K, T new tokens (one, but for the start), Q = K T queries of a row, P slots, L layers, H heads, S source, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from monoglot.model.layers import Cache, LayerCache
from monoglot.model.unified import Memory, UnifiedModel

WIDEST = 16
"""Beams that look at each other's slots cost K times K; more than these have a past each."""
AHEAD = 32
"""Places for which biases are made at a time."""


class Steps(Protocol):
    """Between calls the search says which beams go on."""

    def __call__(self, ids: Tensor) -> Tensor:
        """ids int64[N, T], written since the last call -> states float[N, D] behind the last of them."""

    def select(self, index: Tensor, beams: int) -> None:
        """Keep the beams int64[N], in that order; `beams` of them are of one row, and come from one row."""


def steps_of(model: UnifiedModel, memory: Memory, width: int, code_rows: Tensor | None) -> Steps:
    """The quickest way for searches of `width` beams. Both say the same, but for rounding."""
    own = type(model).decode is UnifiedModel.decode  # an exported model is a graph, and has no layers to run
    folded = own and width <= WIDEST and not model.training  # dropout would hide something else from each beam
    return (FoldedSteps if folded else PlainSteps)(model, memory, code_rows)


class PlainSteps:
    """The decoder as training runs it, beam by beam."""

    def __init__(self, model: UnifiedModel, memory: Memory, code_rows: Tensor | None):
        self.model, self.memory, self.code_rows, self.cache = model, memory, code_rows, Cache()

    def __call__(self, ids: Tensor) -> Tensor:
        return self.model.decode(ids, self.memory, code_rows=self.code_rows, cache=self.cache)[:, -1]

    def select(self, index: Tensor, beams: int) -> None:
        self.cache.select(index)
        self.memory = self.memory.select(index)
        self.code_rows = None if self.code_rows is None else self.code_rows[index]


class Slots(LayerCache):
    """A past that is written in place: room [R, H, *, d] for keys and values, of which the first `used` slots are filled."""

    used = 0

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        end = self.used + keys.shape[2]
        if self.past is None or end > self.past[0].shape[2]:
            self.past = (
                self._room(self.past and self.past[0], keys, end),
                self._room(self.past and self.past[1], values, end),
            )
        for room, new in zip(self.past, (keys, values)):
            room[:, :, self.used : end] = new
        self.used = end
        return self.past[0][:, :, :end], self.past[1][:, :, :end]

    def _room(self, old: Tensor | None, new: Tensor, end: int) -> Tensor:
        rows, heads, _, width = new.shape
        room = new.new_empty(rows, heads, max(64, 2 * end), width)
        if old is not None:
            room[:, :, : self.used] = old[:, :, : self.used]
        return room


class FoldedSteps:
    """The same layers, the beams of a row folded into its queries."""

    def __init__(self, model: UnifiedModel, memory: Memory, code_rows: Tensor | None):
        self.model, self.memory, self.code_rows = model, memory, code_rows
        self.rows, self.beams, self.length = len(memory.valid), 1, 0
        self.layers = [Slots() for _ in model.decoder_layers]
        device = memory.states.device
        self.own = torch.ones(self.rows, 1, 0, dtype=torch.bool, device=device)
        """bool[R, K, P]: slots of each beam's own past."""
        self.place = torch.zeros(0, dtype=torch.long, device=device)
        """int64[P]: the place of what each slot holds."""
        self.hidden = None if bool(memory.valid.all()) else _hide(memory.valid)[:, None, None, :]
        self.made = range(0)
        """Places whose biases `self.self_bias` and `self.cross_bias` hold."""
        if model.untied:
            self.memory_places = model.cross_bias.keys(memory.positions)

    def __call__(self, ids: Tensor) -> Tensor:
        model, (beams, new) = self.model, (self.beams, ids.shape[1])
        code_rows = None if self.code_rows is None else self.code_rows.repeat_interleave(beams)
        places = slice(self.length, self.length + new)
        x = model.target.embed(ids, places, code_rows, model.words).view(self.rows, beams * new, -1)
        seen = self._write(beams, new)
        self_bias, cross_bias = self._biases(seen, new)
        for index, layer in enumerate(model.decoder_layers):
            x = layer(x, self.memory.states, self_bias[index], cross_bias, self.layers[index])
        self.length += new
        return model.decoder_norm(x.view(self.rows * beams, new, -1)[:, -1])

    def select(self, index: Tensor, beams: int) -> None:
        rows = index[::beams] // self.beams
        self.own = self.own.flatten(0, 1)[index].view(len(rows), beams, -1)
        if len(rows) < self.rows:
            for layer in self.layers:
                layer.select(rows)
            self.memory = self.memory.select(rows)
            self.code_rows = None if self.code_rows is None else self.code_rows[rows]
            self.hidden = None if self.hidden is None else self.hidden[rows]
            if self.model.untied:
                self.memory_places = self.memory_places[rows]
                self.self_bias = self.self_bias if self.self_bias.shape[1] == 1 else self.self_bias[:, rows]
                self.cross_bias = self.cross_bias[rows]
        self.rows, self.beams = len(rows), beams

    def _write(self, beams: int, new: int) -> Tensor:
        """Slots for what comes now; bool[R, Q, P] what each query sees: its beam's past, and what is new up to itself."""
        fresh = torch.eye(beams, dtype=torch.bool, device=self.own.device)
        order = torch.ones(new, new, dtype=torch.bool, device=self.own.device).tril()
        now = torch.kron(fresh, order)[None].expand(self.rows, -1, -1)
        seen = torch.cat([self.own.repeat_interleave(new, dim=1), now], dim=2)
        self.own = seen[:, new - 1 :: new]
        places = torch.arange(self.length, self.length + new, device=self.place.device)
        self.place = torch.cat([self.place, places.repeat(beams)])
        return seen

    def _biases(self, seen: Tensor, new: int) -> tuple[list[Tensor] | Tensor, Tensor | None]:
        """For each layer what self-attention adds, float[R, 1 or H, Q, P], and what all add in the memory, float[R, 1 or H, Q or 1, S]."""
        future = _hide(seen)[:, None]
        if not self.model.untied:
            return [future] * len(self.layers), self.hidden
        if self.length + new > self.made.stop:
            self._look_ahead(self.length + new)
        at = slice(self.length - self.made.start, self.length - self.made.start + new)
        among = self.self_bias[:, :, :, at].index_select(4, self.place)
        return among.repeat(1, 1, 1, self.beams, 1) + future, self.cross_bias[:, :, at].repeat(1, 1, self.beams, 1)

    def _look_ahead(self, end: int) -> None:
        """Biases of the next places: self_bias float[L, 1 or R, H, places, all places], cross_bias float[R, H, places, S]."""
        model = self.model
        end = max(end, min(self.length + AHEAD, model.target.longest(self.code_rows)))
        self.made = now = range(self.length, end)
        positions, relations = model.target.places(end, self.code_rows)
        queries = positions[:, now.start :]
        among = model.decoder_bias(queries, positions)
        tables = torch.stack([table(relations[:, now.start :]) for table in model.decoder_relations])
        self.self_bias = among + tables.permute(0, 1, 4, 2, 3)
        self.cross_bias = model.cross_bias.queries(queries) @ self.memory_places.transpose(-1, -2)
        if self.hidden is not None:
            self.cross_bias = self.cross_bias + self.hidden


# --- many texts at once -----------------------------------------------------------------------------------------------


class Tree:
    """Texts as tokens, of which those that begin alike have their beginning in common.

    >>> tree = Tree()
    >>> tree.add([7, 8]), tree.add([7, 9]), tree.add([7]), tree.tokens, tree.parents, tree.places
    (1, 2, 0, [7, 8, 9], [-1, 0, 0], [0, 1, 1])
    """

    def __init__(self) -> None:
        self.tokens, self.parents, self.places = list[int](), list[int](), list[int]()
        self._known: dict[tuple[int, int], int] = {}

    def add(self, text: Sequence[int]) -> int:
        """Where the last token of a text stands."""
        at = -1
        for place, token in enumerate(text):
            if (at, token) not in self._known:
                self._known[at, token] = len(self.tokens)
                self.tokens.append(token)
                self.parents.append(at)
                self.places.append(place)
            at = self._known[at, token]
        return at

    def text(self, at: int) -> list[int]:
        return [*self.text(self.parents[at]), self.tokens[at]] if at >= 0 else []

    def seen(self, size: int) -> np.ndarray:
        """bool[size, size]: what each token sees, which is itself and what leads to it."""
        seen = np.eye(size, dtype=bool)
        for at, parent in enumerate(self.parents):
            if parent >= 0:
                seen[at] |= seen[parent]
        return seen


class Texts(Protocol):
    """Reads texts for rows of a memory."""

    def __call__(self, rows: Sequence[int], trees: Sequence[Tree]) -> Tensor:
        """For some rows a tree each -> states float[rows, Q, D] behind each token of it; the longest has Q."""


def texts_of(model: UnifiedModel, memory: Memory) -> Texts:
    """The quickest way to read texts. Both say the same, but for rounding."""
    own = type(model).decode is UnifiedModel.decode
    return (FoldedTexts if own and not model.training else PlainTexts)(model, memory)


class PlainTexts:
    """Every beginning of a text by itself, those of one length at a time."""

    def __init__(self, model: UnifiedModel, memory: Memory):
        self.model, self.memory = model, memory

    def __call__(self, rows: Sequence[int], trees: Sequence[Tree]) -> Tensor:
        states: dict[tuple[int, int], Tensor] = {}
        device = self.memory.states.device
        for place in range(1 + max(max(tree.places) for tree in trees)):
            these = [
                (n, at) for n, tree in enumerate(trees) for at in range(len(tree.tokens)) if tree.places[at] == place
            ]
            ids = torch.tensor([trees[n].text(at) for n, at in these], device=device)
            memory = self.memory.select(torch.tensor([rows[n] for n, _ in these], device=device))
            states.update(zip(these, self.model.decode(ids, memory)[:, -1]))
        nothing = torch.zeros_like(states[0, 0])
        size = max(len(tree.tokens) for tree in trees)
        return torch.stack(
            [torch.stack([states.get((n, at), nothing) for at in range(size)]) for n in range(len(trees))]
        )


class FoldedTexts:
    """All tokens of a row's tree are queries side by side, over one copy of what the row remembers."""

    def __init__(self, model: UnifiedModel, memory: Memory):
        self.model, self.memory = model, memory
        self.known = [layer.cross.keys_values(memory.states) for layer in model.decoder_layers]
        self.hidden = None if bool(memory.valid.all()) else _hide(memory.valid)[:, None, None, :]
        if model.untied:
            self.memory_places = model.cross_bias.keys(memory.positions)

    def __call__(self, rows: Sequence[int], trees: Sequence[Tree]) -> Tensor:
        model, device = self.model, self.memory.states.device
        size = max(len(tree.tokens) for tree in trees)
        ids, places = torch.zeros(2, len(trees), size, dtype=torch.long)
        for row, tree in enumerate(trees):
            ids[row, : len(tree.tokens)] = torch.tensor(tree.tokens)
            places[row, : len(tree.tokens)] = torch.tensor(tree.places)
        ids, places = ids.to(device), places.to(device)
        seen = torch.from_numpy(np.stack([tree.seen(size) for tree in trees])).to(device)
        which = slice(None) if [*rows] == [*range(len(self.memory.valid))] else torch.tensor(rows, device=device)
        self_bias, cross_bias = self._biases(seen, places, which)
        x = model.target.embed(ids, places, None, model.words)
        for layer, bias, (keys, values) in zip(model.decoder_layers, self_bias, self.known):
            kept = LayerCache(memory=(keys[which], values[which]))
            x = layer(x, self.memory.states, bias, cross_bias, kept)
        return model.decoder_norm(x)

    def _biases(self, seen: Tensor, places: Tensor, which: slice | Tensor) -> tuple[list[Tensor], Tensor | None]:
        """As FoldedSteps has them: for each layer float[R, 1 or H, Q, Q], and float[R, 1 or H, Q or 1, S]."""
        model, future = self.model, _hide(seen)[:, None]
        hidden = None if self.hidden is None else self.hidden[which]
        if not model.untied:
            return [future] * len(self.known), hidden
        positions, relations = model.target.places(int(places.max()) + 1, None)
        among = model.decoder_bias(positions, positions)[0]
        tables = [among + table(relations[0]).permute(2, 0, 1) for table in model.decoder_relations]
        queries, keys = places[:, :, None], places[:, None, :]
        self_bias = [table[:, queries, keys].transpose(0, 1) + future for table in tables]
        cross_bias = model.cross_bias.queries(positions)[0][:, places].transpose(0, 1)
        cross_bias = cross_bias @ self.memory_places[which].transpose(-1, -2)
        return self_bias, cross_bias if hidden is None else cross_bias + hidden


def _hide(visible: Tensor) -> Tensor:
    return torch.zeros(visible.shape, device=visible.device).masked_fill(~visible, float("-inf"))
