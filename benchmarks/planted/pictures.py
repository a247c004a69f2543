"""Small networks of convolutions, with random weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))))


class Resnet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.pool = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.MaxPool2d(2)
        self.blocks, self.head = nn.Sequential(*(Residual(16) for _ in range(3))), nn.Linear(16, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.blocks(self.pool(torch.relu(self.norm(self.stem(image)))))
        return self.head(x.mean((2, 3)))


class Normed(nn.Module):
    """Convolution, group norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(4, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(self.norm(self.conv(x)))


class Unet(nn.Module):
    """Two levels down and up again; what went down is concatenated on the way up."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.down1, self.down2 = Normed(3, 8), Normed(8, 16, 2), Normed(16, 32, 2)
        self.up1, self.up2, self.leave = (
            nn.ConvTranspose2d(32, 16, 2, 2),
            nn.ConvTranspose2d(16, 8, 2, 2),
            Normed(16, 8),
        )
        self.middle, self.last = Normed(32, 16), nn.Conv2d(8, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        a = self.enter(image)
        b = self.down1(a)
        x = self.middle(torch.cat([self.up1(self.down2(b)), b], 1))
        return self.last(self.leave(torch.cat([self.up2(x), a], 1)))


class Decoder(nn.Module):
    """Latents to a picture: residual blocks with group norm, and upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.blocks = nn.Conv2d(4, 16, 1), nn.ModuleList(Normed(16, 16) for _ in range(3))
        self.last = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.enter(latents)
        for block in self.blocks[:2]:
            x = functional.interpolate(x + block(x), scale_factor=2.0, mode="nearest")
        x = x + self.blocks[2](x)
        return torch.sigmoid(self.last(x))


class Inverted(nn.Module):
    """Expand, depthwise convolution, squeeze and excite, project: the block of MobileNet."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.expand, self.norm1 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.depth = nn.Conv2d(4 * width, 4 * width, 3, padding=1, groups=4 * width, bias=False)
        self.norm2, self.squeeze = nn.BatchNorm2d(4 * width), nn.Conv2d(4 * width, 8, 1)
        self.excite, self.project = nn.Conv2d(8, 4 * width, 1), nn.Conv2d(4 * width, width, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.hardswish(self.norm1(self.expand(x)))
        y = functional.hardswish(self.norm2(self.depth(y)))
        y = y * torch.sigmoid(self.excite(torch.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        return x + self.norm3(self.project(y))


class Mobilenet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 8, 3, 2, 1), nn.Sequential(Inverted(), Inverted())
        self.head = nn.Linear(8, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.blocks(functional.hardswish(self.stem(image))).mean((2, 3)))


class Detector(nn.Module):
    """Boxes, scores and the best class of every cell of a grid."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 2, 1)
        self.boxes, self.scores = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 6, 1)
        grid = torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij"), -1).reshape(1, 16, 2)
        self.register_buffer("grid", grid, persistent=False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = functional.silu(self.body(functional.silu(self.stem(image))))
        places, sizes = self.boxes(x).flatten(2).transpose(1, 2).split([2, 2], -1)
        centres = (torch.sigmoid(places) + self.grid) * 4
        halves = torch.exp(sizes) * 2
        scores = self.scores(x).flatten(2).transpose(1, 2)
        return {"boxes": torch.cat([centres - halves, centres + halves], -1), "scores": torch.sigmoid(scores)}
