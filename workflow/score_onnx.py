"""Score a photograph without stlib or PyTorch: python score_onnx.py MODEL PHOTO."""

import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
card = session.get_modelmeta().custom_metadata_map
side = session.get_inputs()[0].shape[-1]
photo = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGB")
pixels = np.asarray(photo.resize((side, side), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
_, (score,) = session.run(None, {"images": pixels[None]})
print(score, "anomalous" if score > float(card["threshold"] or "inf") else "good")
