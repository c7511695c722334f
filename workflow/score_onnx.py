"""Score a photograph without stlib or PyTorch: python score_onnx.py MODEL PHOTO."""

import re
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
card = session.get_modelmeta().custom_metadata_map
side = session.get_inputs()[0].shape[-1]
image = Image.open(sys.argv[2], formats=("PNG", "JPEG", "BMP", "TIFF", "WEBP"))
deep = re.search(r";16[BLN]", str(image.tile))  # 16 bits per colour, of which PIL would keep the upper half
frames = getattr(image, "n_frames", 1) > 1 and image.format != "MPO"
photo = ImageOps.exif_transpose(image)
clear = photo.has_transparency_data and photo.convert("RGBA").getchannel("A").getextrema()[0] != 255
if deep or frames or clear or image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
    sys.exit(f"error: {sys.argv[2]} is not one opaque image in grey or RGB with 8 bits per channel")
resized = photo.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
_, (score,) = session.run(None, {"images": np.asarray(resized).transpose(2, 0, 1)[None]})
if threshold := card["threshold"]:
    print(score, "good" if score <= float(threshold) else "anomalous")  # as is a score that is no number
else:
    print(score, "no threshold")
