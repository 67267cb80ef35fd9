"""SegFormer (Xie et al. 2021): transformers' parameters, and the same function of them with less work.

The encoder is computed on (N, H, W, C) throughout: what convolutions call channels_last and linear layers call tokens
is one layout, so nothing is copied between them, and upsampling reads and writes whole pixels.

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

from segbench.core.config import TrialConfig
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
        x = image.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
        for stage in self.segformer.stages:
            x = encode(stage, x)
            features.append(x)
        logits = decode(self.decode_head, features).permute(0, 3, 1, 2)
        return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)


# The library looks up by the class's name how the head's parameters are called in files; unknown classes of other
# packages get no renaming, and a pretrained head would be left out.
conversion_mapping.register_checkpoint_conversion_mapping(
    SegFormer.__name__,
    conversion_mapping.get_checkpoint_conversion_mapping(SegformerForSemanticSegmentation.__name__),
    overwrite=True,
)


def encode(stage: Any, x: Tensor) -> Tensor:
    """Compute what transformers' ``SegformerStage`` computes, (N, H_i, W_i, C_i) from (N, H, W, C)."""
    x = stage.patch_embeddings.layer_norm(convolve(stage.patch_embeddings.proj, x))
    for block in stage.blocks:
        x = add_branch(x, attend(block.attention, block.layernorm_before(x)), block)
        x = add_branch(x, mix(block.mlp, block.layernorm_after(x)), block)
    normed: Tensor = stage.layer_norm(x)
    return normed


def attend(attention: Any, x: Tensor) -> Tensor:
    """Attend from each place to the reduced grid; the result has the shape of ``x``."""
    reduced = x
    if attention.sequence_reduction_ratio > 1:
        reduction = attention.sequence_reduction
        reduced = reduction.layer_norm(convolve(reduction.sequence_reduction, x))

    def heads(tokens: Tensor) -> Tensor:
        # not len(): an exported model would be fixed to one batch size
        return tokens.view(tokens.shape[0], -1, attention.num_attention_heads, attention.head_dim).transpose(1, 2)

    query, key, value = heads(attention.q_proj(x)), heads(attention.k_proj(reduced)), heads(attention.v_proj(reduced))
    if query.device.type == "cpu" and query.dtype.itemsize < 4:
        # torch's fused attention is 2 to 7 times slower here: it is made for many keys, and there are few.
        attended = ((query * attention.scaling) @ key.transpose(2, 3)).softmax(dim=-1) @ value
    else:
        attended = F.scaled_dot_product_attention(query, key, value)
    out: Tensor = attention.o_proj(attended.transpose(1, 2).reshape(x.shape))
    return out


def mix(mlp: Any, x: Tensor) -> Tensor:
    """Compute the Mix-FFN: a linear layer, a depth-wise convolution, GELU, and a linear layer."""
    mixed: Tensor = mlp.fc2(mlp.activation_fn(convolve_depthwise(mlp.dwconv.dwconv, mlp.fc1(x))))
    return mixed


def add_branch(x: Tensor, branch: Tensor, block: Any) -> Tensor:
    """Return ``x + branch``; in training the branch is left out for some images (stochastic depth)."""
    rate = getattr(block.drop_path, "drop_prob", 0.0)
    if not block.training or rate == 0.0:
        return x + branch
    kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= rate
    return torch.addcmul(x, branch, kept.to(branch.dtype) / (1 - rate))


def convolve(convolution: nn.Module, x: Tensor) -> Tensor:
    """Apply a convolution to (N, H, W, C): a view of a channels_last image, so that nothing is copied."""
    image: Tensor = convolution(x.permute(0, 3, 1, 2))
    return image.permute(0, 2, 3, 1)


def convolve_depthwise(convolution: nn.Module, x: Tensor) -> Tensor:
    """Apply a depth-wise 3x3 convolution to (N, H, W, C).

    An image lower than the kernel gets rows of zeros below, as its padding is anyway: without them oneDNN has no fast
    kernel for the weights' gradient (1024 channels of 2x4 in bf16: 3.2 ms forward and backward, 0.5 ms with them).
    """
    height = x.shape[1]
    if height >= 3 or x.device.type != "cpu" or not torch.is_grad_enabled():
        return convolve(convolution, x)
    return convolve(convolution, F.pad(x, (0, 0, 0, 0, 0, 3 - height)))[:, :height]


def decode(head: Any, features: Sequence[Tensor]) -> Tensor:
    """Compute what transformers' ``SegformerDecodeHead`` computes, in the cheaper order.

    Args:
        head: The library's decode head; its parameters are used, its forward is not.
        features: Of the four stages, the finest first: (N, H_i, W_i, C_i), 1/4 to 1/32 of the image.

    Returns:
        Logits (N, H_0, W_0, K).
    """
    size = features[0].shape[1:3]
    mixed: Tensor | None = None
    for feature, (weight, bias) in zip(features, compose_projections(head), strict=True):
        scale = F.linear(feature, weight, bias).permute(0, 3, 1, 2)
        if scale.shape[-2:] != size:
            scale = F.interpolate(scale, size=size, mode="bilinear", align_corners=False)
        mixed = scale if mixed is None else mixed + scale
    activated = head.dropout(head.activation(head.batch_norm(mixed)))
    return F.linear(activated.permute(0, 2, 3, 1), head.classifier.weight.flatten(1), head.classifier.bias)


def compose_projections(head: Any) -> list[tuple[Tensor, Tensor | None]]:
    """Return for each scale its projection times its columns of the mixing matrix, (D, C_i), and a bias.

    The whole bias (D) stands at the first scale, which needs no upsampling. Composed outside autocast: one rounding
    to half precision, of the product, instead of three.
    """
    projections = [projection.proj for projection in head.linear_projections]
    with torch.autocast(head.linear_fuse.weight.device.type, enabled=False):
        # The published head concatenates the coarsest scale first.
        blocks = head.linear_fuse.weight.flatten(1).chunk(len(projections), dim=1)[::-1]
        weights = [block @ projection.weight for block, projection in zip(blocks, projections, strict=True)]
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
