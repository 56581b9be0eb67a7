"""One run in several processes: torchrun starts them, each computes its part of every step's rows.

    torchrun --nproc-per-node 2 -m monoglot train RECIPE.yaml

A step's rows, its loss and its gradient are those of one process: the loss is a sum over all rows divided by their tokens, and sums are added up.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel

from monoglot.model.unified import UnifiedModel

_PROCESSOR = torch.device("cpu")


@dataclass(frozen=True)
class World:
    """The processes of a run, and this one among them."""

    rank: int = 0
    size: int = 1
    device: torch.device = _PROCESSOR
    """Where this process computes."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def slots(self) -> slice:
        """This process's share of a step: every `size`-th row, so that each data set is spread evenly."""
        return slice(self.rank, None, self.size)

    def sum(self, values: Tensor) -> Tensor:
        """Added up over all processes, the same in each."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def most(self, value: int) -> int:
        """The largest of all processes' numbers."""
        if self.size == 1:
            return value
        found = torch.tensor(value)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return int(found)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def open_world() -> World:
    """The processes that torchrun started; this one alone if it did not. Each takes a GPU if the machine has any."""
    size, device = int(os.environ.get("WORLD_SIZE", "1")), _PROCESSOR
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if size == 1:
        return World(device=device)
    if not dist.is_initialized():
        dist.init_process_group("gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl")
    return World(dist.get_rank(), size, device)


def spread(trainee: nn.Module, model: UnifiedModel, world: World, how: str) -> nn.Module:
    """`trainee`, which calls `model`, made to learn the same in every process; as it is when there is one.

    Args:
        how: 'ddp': each process holds all weights and gradients are averaged; 'fsdp': each holds a share of every matrix.
    """
    if world.size == 1:
        return trainee
    if how == "ddp":
        # A process may see no picture in a step that another sees one in.
        return DistributedDataParallel(trainee, find_unused_parameters=True)
    policy = MixedPrecisionPolicy()
    for layer in (*model.encoder_layers, *model.decoder_layers):
        fully_shard(layer, mp_policy=policy)
    fully_shard(trainee, mp_policy=policy)
    for method in ("encode", "decode", "logits", "encode_media"):
        register_fsdp_forward_method(model, method)
    return trainee
