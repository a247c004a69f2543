"""The networks of Stable Diffusion 1.5 with ControlNet, each as a module that takes and gives named tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch

LATENT_SCALE = 0.18215
"""What the autoencoder's latents are multiplied by to have unit variance."""


class TextEncoder(torch.nn.Module):
    """Token ids int64 [batch, 77] to ``context`` [batch, 77, width]."""

    def __init__(self, clip: torch.nn.Module) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"context": self.clip(input_ids=input_ids).last_hidden_state}


class Hint(torch.nn.Module):
    """Edges [batch, 3, height, width] in 0..1 to the ``hint`` that the ControlNet adds: the same in every step."""

    def __init__(self, controlnet: torch.nn.Module) -> None:
        super().__init__()
        self.embedding = controlnet.controlnet_cond_embedding

    def forward(self, edges: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"hint": self.embedding(edges)}


class ControlNet(torch.nn.Module):
    """Latents, time step, context and hint to ``control_00`` and so on: what the UNet adds; the last is the middle."""

    def __init__(self, controlnet: torch.nn.Module) -> None:
        super().__init__()
        self.controlnet = controlnet
        self.controlnet.controlnet_cond_embedding = torch.nn.Identity()  # the hint comes embedded

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, context: torch.Tensor, hint: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        down, middle = self.controlnet(sample, timestep, context, hint, return_dict=False)
        return {control_name(index): tensor for index, tensor in enumerate([*down, middle])}


class UNet(torch.nn.Module):
    """Latents, time step, context and the ControlNet's outputs to ``noise``, shaped like the latents."""

    def __init__(self, unet: torch.nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        control_00: torch.Tensor,
        control_01: torch.Tensor,
        control_02: torch.Tensor,
        control_03: torch.Tensor,
        control_04: torch.Tensor,
        control_05: torch.Tensor | None = None,
        control_06: torch.Tensor | None = None,
        control_07: torch.Tensor | None = None,
        control_08: torch.Tensor | None = None,
        control_09: torch.Tensor | None = None,
        control_10: torch.Tensor | None = None,
        control_11: torch.Tensor | None = None,
        control_12: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        given = (
            *(control_00, control_01, control_02, control_03, control_04, control_05, control_06),
            *(control_07, control_08, control_09, control_10, control_11, control_12),
        )  # named one by one: the exporter does not take **controls
        ordered = [control for control in given if control is not None]
        noise = self.unet(
            sample,
            timestep,
            encoder_hidden_states=context,
            down_block_additional_residuals=tuple(ordered[:-1]),
            mid_block_additional_residual=ordered[-1],
            return_dict=False,
        )[0]
        return {"noise": noise}


class ControlledUNet(torch.nn.Module):
    """ControlNet and UNet in one; ``scales`` [controls, batch] is what each of the ControlNet's outputs counts."""

    def __init__(self, controlnet: ControlNet, unet: UNet) -> None:
        super().__init__()
        self.controlnet, self.unet = controlnet, unet

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        hint: torch.Tensor,
        scales: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        controls = scaled(self.controlnet(sample, timestep, context, hint), scales)
        result: dict[str, torch.Tensor] = self.unet(sample, timestep, context, **controls)
        return result


class VaeEncoder(torch.nn.Module):
    """A picture [batch, 3, height, width] in -1..1 to ``moments``: mean and log variance of its latents."""

    def __init__(self, vae: torch.nn.Module) -> None:
        super().__init__()
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv

    def forward(self, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"moments": self.quant_conv(self.encoder(picture))}


class VaeDecoder(torch.nn.Module):
    """Latents as the UNet has them, [batch, 4, height / 8, width / 8], to ``picture`` in -1..1."""

    def __init__(self, vae: torch.nn.Module) -> None:
        super().__init__()
        self.decoder, self.post_quant_conv = vae.decoder, vae.post_quant_conv

    def forward(self, latents: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"picture": self.decoder(self.post_quant_conv(latents / LATENT_SCALE))}


def control_name(index: int) -> str:
    """Return the name of one output of the ControlNet."""
    return f"control_{index:02}"


def scaled(controls: Mapping[str, torch.Tensor], scales: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the ControlNet's outputs, each row times its scale; ``scales`` is [controls, batch]."""
    return {
        name: tensor * scales[index][:, None, None, None].to(tensor.dtype)
        for index, (name, tensor) in enumerate(sorted(controls.items()))
    }
