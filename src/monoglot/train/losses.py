"""The one loss: cross entropy of the next token. Source: section 19 of the published model's arithmetic."""

from __future__ import annotations

from torch import Tensor


def token_losses(logits: Tensor, target: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Cross entropy of each token, with label smoothing over the whole vocabulary.

    Args:
        logits: float[N, V]; taken to float32 here.
        target: int64[N].
        smoothing: the share of the target's probability that all other words get together.

    Returns:
        float32[N], in nats; sum or weigh them as the task balance wants.
    """
    log_probabilities = logits.float().log_softmax(-1)
    nll = -log_probabilities.gather(-1, target[:, None])[:, 0]
    if smoothing == 0.0:
        return nll
    each = smoothing / (logits.shape[-1] - 1)
    return (1 - smoothing - each) * nll - each * log_probabilities.sum(-1)
