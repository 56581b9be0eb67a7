"""One run in several processes: torchrun starts them, each computes its part of every step's rows.

    torchrun --nproc-per-node 2 -m monoglot train RECIPE.yaml

A step's rows, its loss and its gradient are those of one process: the loss is a sum over all rows divided by their tokens, and sums are added up.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

_PROCESSOR = torch.device("cpu")
T = TypeVar("T")


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

    def all(self, items: list[T]) -> list[T]:
        """The items of all processes, the same in each."""
        if self.size == 1:
            return items
        found: list[list[T]] = [[] for _ in range(self.size)]
        dist.all_gather_object(found, items)
        return [item for part in found for item in part]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def is_first_process() -> bool:
    """True unless torchrun started this process beside another that speaks for all."""
    return os.environ.get("RANK", "0") == "0"


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


def spread(trainee: nn.Module, layers: Iterable[nn.Module], world: World, how: str) -> nn.Module:
    """`trainee`, made to learn the same in every process; as it is when there is one.

    Args:
        layers: parts of it that may be put together one after another.
        how: 'ddp': each process holds all weights and gradients are averaged; 'fsdp': each holds a share of every matrix.
    """
    if world.size == 1:
        return trainee
    if how == "ddp":
        return DistributedDataParallel(trainee)
    for layer in layers:
        fully_shard(layer)
    # Whatever changes weights changes the shares: nothing whole may be left of a forward without a backward.
    fully_shard(trainee, reshard_after_forward=True)
    return trainee


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each process may hold a share, put together in all."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shared_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, or this process's share of it if `other` is spread over processes."""
    if not isinstance(other, DTensor):
        return tensor
    return distribute_tensor(tensor, other.device_mesh, other.placements, src_data_rank=None)
