"""The demo: dataset, textures and teacher of the project's own making, so that everything runs offline."""

from pathlib import Path

DEMO_TEACHER = Path(__file__).with_name("teacher.safetensors")
"""conv1 to layer3 in float16, trained on images of the project's own making (`stlib/demo/teacher.md`)."""
