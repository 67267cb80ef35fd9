"""UNet: the encoder-decoder with skip connections of Ronneberger, Fischer and Brox (2015).

Differs from the paper in that convolutions are padded, so that logits have the image's size, and in an optional
normalisation after each convolution.
"""

import torch
from torch import Tensor, nn

from segbench.core.config import TrialConfig


class UNet(nn.Module):
    """A UNet for images of any size.

    Pooling rounds an odd side up and the way back crops the surplus row or column, so no side must be divisible
    by anything, and a pixel stays where it was.
    """

    def __init__(self, num_classes: int, *, width: int, depth: int, norm: str, dropout: float) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(depth + 1)]
        self.encoder = Encoder(channels, norm)
        self.decoder = Decoder(channels, norm)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Conv2d(width, num_classes, kernel_size=1))

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, K, H, W) of an image (N, 3, H, W)."""
        logits: Tensor = self.classifier(self.decoder(self.encoder(image)))
        return logits


class Encoder(nn.Module):
    """The contracting path."""

    def __init__(self, channels: list[int], norm: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            double_convolution(below, above, norm) for below, above in zip([3, *channels], channels, strict=False)
        )
        self.pool = nn.MaxPool2d(2, ceil_mode=True)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the features of each level, the finest first."""
        features = [self.blocks[0](image)]
        for block in self.blocks[1:]:
            features.append(block(self.pool(features[-1])))
        return features


class Decoder(nn.Module):
    """The expanding path."""

    def __init__(self, channels: list[int], norm: str) -> None:
        super().__init__()
        coarse_to_fine = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, kernel_size=2, stride=2) for coarse, fine in coarse_to_fine
        )
        self.blocks = nn.ModuleList(double_convolution(coarse, fine, norm) for coarse, fine in coarse_to_fine)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return features (N, width, H, W) at full resolution from those of all levels."""
        x = features[-1]
        for up, block, skip in zip(self.ups, self.blocks, features[-2::-1], strict=True):
            height, width = skip.shape[-2:]
            x = block(torch.cat([skip, up(x)[..., :height, :width]], dim=1))
        return x


def double_convolution(in_channels: int, out_channels: int, norm: str) -> nn.Sequential:
    """Return two 3x3 convolutions, each with normalisation and ReLU."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        convolution = nn.Conv2d(channels, out_channels, kernel_size=3, padding=1, bias=norm == "none")
        # The paper's initialisation; torch's default lets activations fade where there is no normalisation.
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        layers += [convolution, normalisation(norm, out_channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def normalisation(norm: str, channels: int) -> nn.Module:
    """Return the normalisation layer; groups hold 16 channels (Wu and He 2018), or all if 16 does not divide."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        return nn.GroupNorm(channels // 16 if channels % 16 == 0 else 1, channels)
    return nn.Identity()


def build(config: TrialConfig, num_classes: int) -> UNet:
    """Return a UNet with random weights."""
    return UNet(num_classes, width=config.width, depth=config.depth, norm=config.norm, dropout=config.dropout)
