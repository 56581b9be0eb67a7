"""What frozen encoders say, from the cache where it is kept, else computed and kept.

Batch -> (features that are kept | encode_media, each item once) -> one float[L, C] a media item
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from monoglot.cache import cache_dir
from monoglot.data.collate import Batch, MediaBatch
from monoglot.data.features import FeatureCache, KeptFeatures, fingerprint
from monoglot.model.unified import UnifiedModel


def open_cache(model: UnifiedModel, gigabytes: float = 8.0, folder: str | None = None) -> FeatureCache | None:
    """The cache of a model's encoders, in the user's cache folder unless given; None if it is to hold nothing."""
    if gigabytes == 0:
        return None
    place = Path(folder) if folder else cache_dir() / "features"
    settings = model.config.model_dump(mode="json")["modalities"]
    return FeatureCache(place / fingerprint(model.encoders, settings), int(gigabytes * 1e9))


def features(model: UnifiedModel, batch: Batch, cache: KeptFeatures | None) -> dict[str, list[Tensor]]:
    """One float[L, C] a media item; equal ones are encoded once. They are rounded as the cache rounds them, so that the next time is the same."""
    if cache is None:
        return model.encode_media(batch.media)
    device = batch.source_ids.device
    for media in batch.media.values():
        for index, key in media.keys.items():
            # Kept since the batch was read ahead.
            if index not in media.encoded and (kept := cache.get(key)) is not None:
                media.items[index] = torch.from_numpy(kept[0].astype(np.float32, copy=False)).to(device)
                media.encoded.add(index)
    once = {name: _each_once(media) for name, media in batch.media.items()}
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        found = model.encode_media({name: media for name, (media, _) in once.items()})
    for name, (media, _) in once.items():
        for index, key in media.keys.items():
            if index not in media.encoded:
                rounded = found[name][index].to(cache.dtype)
                cache.put(key, rounded.cpu().numpy(), media.grids[index])
                found[name][index] = rounded.float()
    return {name: [found[name][place] for place in places] for name, (_, places) in once.items()}


def _each_once(media: MediaBatch) -> tuple[MediaBatch, list[int]]:
    """The items without those whose key came before, and where each item of `media` is among them."""
    known: dict[str | int, int] = {}
    places = [known.setdefault(media.keys.get(index, index), len(known)) for index in range(len(media.items))]
    firsts = [places.index(place) for place in range(len(known))]
    alone = replace(
        media,
        **{name: [getattr(media, name)[index] for index in firsts] for name in ("items", "rows", "starts", "grids")},
        encoded={place for place, index in enumerate(firsts) if index in media.encoded},
        keys={place: media.keys[index] for place, index in enumerate(firsts) if index in media.keys},
    )
    return alone, places
