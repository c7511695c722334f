"""Deployed detectors: latency of a single image, throughput of a batch, and the same file in ONNX Runtime.

python benchmarks/inference.py [--methods stpm pfadseg] [--device cuda] [--save]      (needs the extra 'onnx')

Weights are random: they change no cost. BatchNorm statistics are not trivial, so that a mistake in folding
them would show in the largest difference between the two, which is stated.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from side_by_side import asked, compare, report, timed_options
from torch import Tensor

from stlib.detector import Detector
from stlib.methods import METHODS, get_method

Works = dict[str, Callable[[], object]]


def session(file: Path, threads: int, device: str) -> onnxruntime.InferenceSession:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    providers = ["CUDAExecutionProvider"] if device == "cuda" else ["CPUExecutionProvider"]
    opened = onnxruntime.InferenceSession(file, settings, providers=providers)
    if opened.get_providers()[0] != providers[0]:  # it only warns, and goes on on the CPU
        raise SystemExit(f"ONNX Runtime has no {providers[0]} here: install onnxruntime-gpu, or time the CPU")
    return opened


def works(detector: Detector, onnx: onnxruntime.InferenceSession, images: Tensor) -> Works:
    array = images.numpy()
    return {
        "Detector": lambda: detector.maps(images, batch_size=len(images)),
        "Detector, bf16": lambda: detector.maps(images, batch_size=len(images), precision="bf16"),
        "ONNX Runtime": lambda: onnx.run(None, {"images": array}),
    }


def main(arguments: argparse.Namespace) -> None:
    device = torch.device(arguments.device)
    found = {}
    for method in arguments.methods:
        detector = Detector.untrained(method, "paper").on(arguments.device)
        side = detector.image_size
        images = torch.randint(256, (arguments.batch, 3, side, side)).byte()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "detector.onnx"
            detector.export_onnx(file)
            onnx = session(file, arguments.threads, arguments.device)
        anomaly_map, _ = onnx.run(None, {"images": images.numpy()})
        maps = detector.maps(images)
        gap = float(np.abs(anomaly_map - maps.pixel.numpy()).max())
        top = maps.pixel.max().item()
        print(
            f"\n{get_method(method).title}: largest difference of a pixel {gap:.1e}, largest pixel {top:.3g}"
        )
        found[method] = {
            "largest_difference": gap,
            "largest_pixel": top,
            "one": compare(works(detector, onnx, images[:1]), turns=arguments.turns, device=device),
            "batch": compare(
                works(detector, onnx, images),
                turns=arguments.turns,
                device=device,
                items=arguments.batch,
            ),
        }
    report("inference", arguments, {"batch": arguments.batch, "methods": found})


if __name__ == "__main__":
    parser = timed_options(__doc__ or "", turns=5)
    parser.add_argument("--batch", type=int, default=8, help="images per batch")
    parser.add_argument("--methods", nargs="+", default=["stpm", "destseg", "pfadseg"], choices=METHODS)
    main(asked(parser))
