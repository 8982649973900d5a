"""A second lesson for policies that start from nothing: which of the answer's words a picture alone gives away.

Axis legend: P prompt, T picture token, D feature, V vocabulary, G completion (here one a
prompt), L place in a completion.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .policy.batch import PolicyBatch


class PictureWords(nn.Module):
    """Tells from each picture token which words stand in the demonstration, loudest token first.

    A vision tower that starts from nothing gets next to no gradient until the language model attends to it, which waits
    for features that say something; this loss reaches the tower directly. Not in the paper, whose tower is trained.

    Args:
        width: of the features.
        vocab: of the tokenizer.
    """

    def __init__(self, width: int, vocab: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, vocab)
        nn.init.constant_(self.head.bias, -3.0)

    def forward(self, features_TD: Tensor, batch: PolicyBatch, image_token: int) -> Tensor:
        """Mean binary cross-entropy over the words that some answers of the batch have and others have not.

        Args:
            features_TD: features of all pictures' tokens, in the order of the prompts.
            batch: with completions, one a prompt.
            image_token: number of the picture token.
        """
        assert batch.completion_tokens_GL is not None and batch.completion_mask_GL is not None
        prompt_T = (batch.tokens_PN == image_token).nonzero()[:, 0]
        logits_TV = self.head(features_TD).float()
        index_TV = prompt_T[:, None].expand_as(logits_TV)
        loudest_PV = logits_TV.new_full((len(batch), logits_TV.shape[1]), -3.0)
        loudest_PV = loudest_PV.scatter_reduce(0, index_TV, logits_TV, "amax", include_self=False)
        said_PV = torch.zeros_like(loudest_PV)
        said_PV.scatter_(1, batch.completion_tokens_GL.masked_fill(~batch.completion_mask_GL, 0), 1.0)
        share_V = said_PV.mean(0)
        differs_V = (share_V > 0) & (share_V < 1)
        loss_PV = F.binary_cross_entropy_with_logits(loudest_PV, said_PV, reduction="none")
        return (loss_PV * differs_V).sum() / (differs_V.sum() * len(batch)).clamp(min=1)
