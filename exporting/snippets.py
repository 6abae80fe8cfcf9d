"""The Python of model cards: whole programs that load exported weights and use them, run in the export's folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch takes seconds to import, and the command line needs the names in CODE alone
    from exporting.portable import Portable

CODE = {
    "torchvision": """import torch, torchvision

network = torchvision.models.{architecture}()
network.fc = torch.nn.Identity()
{stem}network.load_state_dict(torch.load("{file}", weights_only=True))
features = network.eval()(torch.zeros(2, {channels}, 224, 224))""",
    "timm": """import timm, torch

network = timm.create_model("{architecture}", num_classes=0, in_chans={channels})
network.load_state_dict(torch.load("{file}", weights_only=True))
features = network.eval()(torch.zeros(2, {channels}, 224, 224))""",
    "smp": """import segmentation_models_pytorch as smp, torch

network = smp.Unet("{architecture}", encoder_weights=None, in_channels={channels}, classes=1)
weights = torch.load("{file}", weights_only=True)
print(network.load_state_dict(weights, strict=False))  # missing: the segmentation head, which is new
masks = network.eval()(torch.zeros(2, {channels}, 224, 224))""",
    "unet3d": """import torch
from unet3d import UNet3d

network = UNet3d(in_channels={channels}, out_channels={out_channels}, norm="{norm}", final_act="{final_act}")
network.load_state_dict(torch.load("{file}", weights_only=True){strict})
{use}torch.zeros(1, {channels}, 64, 64, 32))""",
    "nnunet": """import torch
from pcrl_nnunet import PCRLUNet3d

network = PCRLUNet3d(input_channels={channels}, num_classes=2, norm="{norm}", z_normalised={z_normalised})
weights = torch.load("{file}", weights_only=True)["network_weights"]
print(network.load_state_dict(weights, strict=False))  # missing: the layers of the classes, which are new
features = network.eval().encoder(torch.zeros(1, {channels}, 32, 64, 64))  # axes z, y, x""",
}
COMMANDS = {  # of a target that is used by commands
    "nnunet": """
With nnU-Net (`pip install nnunetv2`), for a data set of its number 4, in this folder:

```bash
export PYTHONPATH="$PWD:$PYTHONPATH"  # for nnUNetv2_predict as well
nnUNetv2_plan_and_preprocess -d 4 -c 3d_fullres --no_pp
python pcrl_nnunet.py "$nnUNet_preprocessed"/Dataset004_*/nnUNetPlans.json
nnUNetv2_preprocess -d 4 -plans_name PCRLPlans -c 3d_fullres
nnUNetv2_train 4 3d_fullres 0 -p PCRLPlans -pretrained_weights nnunet.pth
```

`pcrl_nnunet.py` writes plans with the spacing and the intensities below, which the network normalises further by itself
where that is said. The kernels are turned to nnU-Net's axes, z, y, x; below, axes are x, y, z.
""",
}
ONNX = """
`{file}` is the encoder alone, for images of any number and size. Its outputs are {outputs}; the last is the average of
the map before it.

```python
import numpy, onnxruntime

session = onnxruntime.InferenceSession("{file}")
*maps, features = session.run(None, {{"image": numpy.zeros({shape}, numpy.float32)}})
```
"""
STEM = "network.conv1 = torch.nn.Conv2d({channels}, 64, 7, stride=2, padding=3, bias=False)\n"
USE = {"features": "features = network.eval().encode(", "logits": "logits = network.eval()("}
SEGMENT = '''import numpy as np
import SimpleITK as sitk
import torch
from monai.inferers import sliding_window_inference
from torch.nn import functional as F
from unet3d import UNet3d

CLASSES = {classes}  # by their numbers in a mask
WINDOWS = {windows}  # of each channel, the values that become 0 and 1; None: percentiles {percentiles}
SPACING_MM, PATCH, OVERLAP = {spacing_mm}, {patch_shape}, {overlap}

network = UNet3d(in_channels={channels}, out_channels={out_channels}, norm="{norm}", final_act="none")
network.load_state_dict(torch.load("{file}", weights_only=True))
network.eval()


{normal}def read(path):
    """The channels of a file, images of 3 axes and one number a voxel."""
    image = sitk.ReadImage(path)
    if image.GetDimension() == 4:
        return [image[:, :, :, i] for i in range(image.GetSize()[3])]
    count = image.GetNumberOfComponentsPerPixel()
    return [sitk.VectorIndexSelectionCast(image, i) for i in range(count)] if count > 1 else [image]


@torch.no_grad()
def segment(*files):
    """The files of one case, in the order of the channels -> the mask, on the grid of the first file."""
    stored = [channel for file in files for channel in read(file)]
    channels = [sitk.DICOMOrient(channel, "{orientation}") for channel in stored]
    arrays = [sitk.GetArrayFromImage(channel).astype(np.float32).T.copy() for channel in channels]  # axes x, y, z
    voxels, spacing = torch.from_numpy(np.stack(arrays)[None]), channels[0].GetSpacing()
    size = [max(1, round(n * old / new)) for n, old, new in zip(arrays[0].shape, spacing, SPACING_MM)]
    resampled = F.interpolate(voxels, size=size, mode="trilinear", align_corners=False).numpy()
    for channel, window in zip(resampled[0], WINDOWS, strict=True):
        low, high = window or np.percentile(channel, {percentiles})
        channel[:] = np.clip((channel - low) / (high - low), 0, 1) if high > low else 0
    image = torch.from_numpy(resampled).half().float()  # training keeps volumes in half precision
    probabilities = sliding_window_inference(
        image, PATCH, 4, lambda patch: network({patch}).softmax(1), overlap=OVERLAP, mode="gaussian"
    )
    probabilities = F.interpolate(probabilities, size=arrays[0].shape, mode="trilinear", align_corners=False)
    mask = sitk.GetImageFromArray(probabilities[0].argmax(0).numpy().astype(np.uint8).T)
    mask.CopyInformation(channels[0])
    orientation = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(stored[0].GetDirection())
    return sitk.DICOMOrient(mask, orientation)


sitk.WriteImage(segment({example}), "mask.nii.gz")'''


NORMAL = '''def normal(patch):
    """Each channel less its mean, divided by its standard deviation, as in the training."""
    axes = (2, 3, 4)
    std = patch.std(axes, keepdim=True).clamp(min=0.001)
    return (patch - patch.mean(axes, keepdim=True)) / std


'''


def code_for(portable: Portable, segmentation: Mapping[str, Any] | None, z_normalised: bool = False) -> str:
    """Lines of Python that load the weights and use them.

    ``segmentation``: how the volumes of a fine-tuned segmenter were prepared (tasks/msd.py), if that is known.
    ``z_normalised``: whether its patches are then normalised to mean 0 and deviation 1.
    """
    known = {
        "architecture": portable.architecture,
        "file": portable.file,
        "channels": portable.in_channels,
        "out_channels": portable.out_channels,
        "norm": portable.norm,
    }
    if segmentation and portable.decoder and portable.target == "unet3d":
        normal = {"patch": "normal(patch)", "normal": NORMAL} if z_normalised else {"patch": "patch", "normal": ""}
        return SEGMENT.format(**known, **_settings(segmentation), **normal)
    return CODE[portable.target].format(
        **known,
        final_act=portable.final_act,
        z_normalised=z_normalised,
        stem="" if portable.in_channels == 3 else STEM.format(channels=portable.in_channels),
        strict="" if portable.decoder else ", strict=False",
        use=USE["logits" if portable.segments else "features"],
    )


def _settings(segmentation: Mapping[str, Any]) -> dict[str, Any]:
    windows = [tuple(window) if window else None for window in segmentation["windows"]]
    files = ["scan.nii.gz"] if len(windows) == 1 else [f"scan_{number:04d}.nii.gz" for number in range(len(windows))]
    return {
        "classes": repr(["background", *segmentation["classes"]]),
        "windows": repr(windows),
        "percentiles": repr(tuple(segmentation["percentiles"])),
        "spacing_mm": repr(tuple(segmentation["spacing_mm"])),
        "patch_shape": repr(tuple(segmentation["patch"])),
        "overlap": segmentation["overlap"],
        "orientation": segmentation["orientation"],
        "example": ", ".join(f'"{name}"' for name in files),
    }
