"""SegFormer (Xie et al. 2021): transformers' network, with a decode head that does less for the same result.

The published head projects each scale, upsamples it to 1/4 of the image, concatenates the scales and mixes them by
a 1x1 convolution. All of that is linear, and a 1x1 convolution commutes with bilinear upsampling (whose weights
sum to 1, so a bias stays itself). Hence projection and mixing are composed into one matrix per scale, applied at the
scale's own resolution, and the results are upsampled and added: the same function at 2 to 3 times fewer
multiply-adds for the whole network at 512x512. Parameters and checkpoints are those of the published model.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SegformerConfig, SegformerForSemanticSegmentation, conversion_mapping

from segbench.config import TrialConfig
from segbench.models import FAMILIES
from segbench.models.pretrained import load_network

HIDDEN_SIZES = {"mit-b0": (32, 64, 160, 256)}
"""Channels of the four stages; all but b0 have (64, 128, 320, 512)."""
DEPTHS = {
    "mit-b0": (2, 2, 2, 2),
    "mit-b1": (2, 2, 2, 2),
    "mit-b2": (3, 4, 6, 3),
    "mit-b3": (3, 4, 18, 3),
    "mit-b4": (3, 8, 27, 3),
    "mit-b5": (3, 6, 40, 3),
}
"""Blocks of the four stages."""


class SegFormer(SegformerForSemanticSegmentation):
    """The published model as a map from image to full-size logits; loads and saves the published weights."""

    @property
    def encoder(self) -> nn.Module:
        """The hierarchical transformer, without the decode head."""
        encoder: nn.Module = self.segformer
        return encoder

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, K, H, W) of an image (N, 3, H, W)."""
        features = []
        x = image
        for stage in self.segformer.stages:
            x = stage(x)
            features.append(x)
        logits = decode(self.decode_head, features)
        return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)


# The library looks up by the class's name how the head's parameters are called in files; unknown classes of other
# packages get no renaming, and a pretrained head would be left out.
conversion_mapping.register_checkpoint_conversion_mapping(
    SegFormer.__name__,
    conversion_mapping.get_checkpoint_conversion_mapping(SegformerForSemanticSegmentation.__name__),
    overwrite=True,
)


def decode(head: Any, features: Sequence[Tensor]) -> Tensor:
    """Compute what transformers' ``SegformerDecodeHead`` computes, in the cheaper order.

    Args:
        head: The library's decode head; its parameters are used, its forward is not.
        features: Of the four stages, the finest first: (N, C_i, H_i, W_i), 1/4 to 1/32 of the image.

    Returns:
        Logits (N, K, H_0, W_0).
    """
    size = features[0].shape[-2:]
    mixed: Tensor | None = None
    for feature, (weight, bias) in zip(features, compose_projections(head), strict=True):
        scale = F.conv2d(feature, weight, bias)
        if scale.shape[-2:] != size:
            scale = F.interpolate(scale, size=size, mode="bilinear", align_corners=False)
        mixed = scale if mixed is None else mixed + scale
    logits: Tensor = head.classifier(head.dropout(head.activation(head.batch_norm(mixed))))
    return logits


def compose_projections(head: Any) -> list[tuple[Tensor, Tensor | None]]:
    """Return for each scale its projection times its columns of the mixing matrix, (D, C_i, 1, 1), and a bias.

    The whole bias (D) stands at the first scale, which needs no upsampling. Composed outside autocast: one rounding
    to half precision, of the product, instead of three.
    """
    projections = [projection.proj for projection in head.linear_projections]
    with torch.autocast(head.linear_fuse.weight.device.type, enabled=False):
        # The published head concatenates the coarsest scale first.
        blocks = head.linear_fuse.weight.flatten(1).chunk(len(projections), dim=1)[::-1]
        weights = [
            (block @ projection.weight)[:, :, None, None] for block, projection in zip(blocks, projections, strict=True)
        ]
        bias = torch.stack(
            [block @ projection.bias for block, projection in zip(blocks, projections, strict=True)]
        ).sum(0)
    return list(zip(weights, [bias, None, None, None], strict=True))


def build(config: TrialConfig, num_classes: int) -> SegFormer:
    """Return a SegFormer with random weights, or with pretrained ones of the same variant.

    Pretrained weights may be those of the encoder alone (``nvidia/mit-b0``) or of a whole SegFormer; a head for
    another number of classes has its classifier initialised anew.
    """
    variant = config.variant or FAMILIES["segformer"].variants[0]
    network_config = SegformerConfig(
        num_labels=num_classes,
        hidden_sizes=HIDDEN_SIZES.get(variant, (64, 128, 320, 512)),
        depths=DEPTHS[variant],
        decoder_hidden_size=256 if variant in ("mit-b0", "mit-b1") else 768,
        classifier_dropout_prob=config.dropout,
        drop_path_rate=config.drop_path,
    )
    if config.pretrained is None:
        return SegFormer(network_config)
    model: SegFormer = load_network(SegFormer, network_config, config.pretrained, head="decode_head.", variant=variant)
    model.train()
    return model
