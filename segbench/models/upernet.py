"""UPerNet (Xiao et al. 2018) on a ConvNeXt encoder (Liu et al. 2022), both from transformers.

Also the worked example of docs/adding-a-model.md: a family is one file.
"""

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ConvNextBackbone, ConvNextConfig, UperNetConfig, UperNetForSemanticSegmentation

from segbench.core.config import TrialConfig
from segbench.models import FAMILIES
from segbench.models.pretrained import load_network

# variant: blocks and channels of the four stages, channels of the decode head
SIZES = {
    "convnext-atto": ((2, 2, 6, 2), (40, 80, 160, 320), 128),
    "convnext-tiny": ((3, 3, 9, 3), (96, 192, 384, 768), 512),
    "convnext-small": ((3, 3, 27, 3), (96, 192, 384, 768), 512),
    "convnext-base": ((3, 3, 27, 3), (128, 256, 512, 1024), 512),
}


class UPerNet(UperNetForSemanticSegmentation):
    """The library's model, without its auxiliary head, as a map from image to full-size logits."""

    def __init__(self, network_config: UperNetConfig, dropout: float) -> None:
        super().__init__(network_config)
        head = self.decode_head
        # The library's head has no dropout; its last activation is what the classifier reads.
        head.fpn_bottleneck.activation = nn.Sequential(nn.ReLU(), nn.Dropout(dropout))
        for block in head.psp_modules.blocks:
            pooling, convolution = block.layers
            if pooling.output_size == 1:
                convolution.batch_norm = PooledBatchNorm(convolution.batch_norm.num_features)

    @property
    def encoder(self) -> nn.Module:
        """The ConvNeXt, without pyramid pooling and decode head."""
        encoder: nn.Module = self.backbone
        return encoder

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, K, H, W) of an image (N, 3, H, W)."""
        logits: Tensor = super().forward(image).logits
        return logits


class PooledBatchNorm(nn.BatchNorm2d):
    """Batch normalisation after pooling to one pixel.

    A batch of one image leaves a single value per channel, of which torch refuses to take statistics: there the
    running statistics are used and left as they are.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input, (N, C, 1, 1)."""
        if self.training and len(input) == 1:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


def build(config: TrialConfig, num_classes: int) -> UPerNet:
    """Return a UPerNet with random weights, or with a pretrained encoder (``facebook/convnext-tiny-224``, say)."""
    variant = config.variant or FAMILIES["upernet"].variants[0]
    depths, hidden_sizes, head_channels = SIZES[variant]
    encoder_config = ConvNextConfig(
        depths=list(depths),
        hidden_sizes=list(hidden_sizes),
        drop_path_rate=config.drop_path,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    network_config = UperNetConfig(
        backbone_config=encoder_config,
        hidden_size=head_channels,
        use_auxiliary_head=False,
        num_labels=num_classes,
    )
    model = UPerNet(network_config, config.dropout)
    if config.pretrained is not None:
        model.backbone = load_network(
            ConvNextBackbone, encoder_config, config.pretrained, head="hidden_states_norms.", variant=variant
        )
    model.train()
    return model
