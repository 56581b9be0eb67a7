"""What frozen encoders say, from the cache where it is kept, else computed and kept.

Batch -> (features that are kept | encode_media) -> one float[L, C] a media item
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from monoglot.cache import cache_dir
from monoglot.data.collate import Batch
from monoglot.data.features import FeatureCache, fingerprint
from monoglot.model.unified import UnifiedModel


def open_cache(model: UnifiedModel, gigabytes: float = 8.0, folder: str | None = None) -> FeatureCache | None:
    """The cache of a model's encoders, in the user's cache folder unless given; None if it is to hold nothing."""
    if gigabytes == 0:
        return None
    place = Path(folder) if folder else cache_dir() / "features"
    settings = model.config.model_dump(mode="json")["modalities"]
    return FeatureCache(place / fingerprint(model.encoders, settings), int(gigabytes * 1e9))


def features(model: UnifiedModel, batch: Batch, cache: FeatureCache | None) -> dict[str, list[Tensor]]:
    """One float[L, C] a media item. Kept features are rounded as the cache rounds them, so that the next time is the same."""
    if cache is None:
        return model.encode_media(batch.media)
    for media in batch.media.values():
        for index, key in media.keys.items():
            # Kept since the batch was read ahead.
            if index not in media.encoded and (kept := cache.get(key)) is not None:
                media.items[index] = torch.from_numpy(kept[0].astype(np.float32)).to(batch.source_ids.device)
                media.encoded.add(index)
    with torch.no_grad(), torch.autocast(batch.source_ids.device.type, enabled=False):
        found = model.encode_media(batch.media)
    for name, media in batch.media.items():
        for index, key in media.keys.items():
            if index not in media.encoded:
                rounded = found[name][index].to(torch.float16)
                cache.put(key, rounded.cpu().numpy(), media.grids[index])
                found[name][index] = rounded.float()
    return found
