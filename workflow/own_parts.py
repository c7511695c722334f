"""Lay out photographs of KolektorSDD for the chapter 'Your own parts': whole, and cut into tiles.

python workflow/own_parts.py KOLEKTORSDD OUT

KOLEKTORSDD holds a folder per part, `kosNN/PartM.jpg` beside `PartM_label.bmp`. Parts of which there is a
defective photograph are tested, all others are learnt from, so that no part is in both. OUT gets two
categories: `commutator`, and `tiles`, the same photographs cut into TILES pieces from top to bottom.
"""

import shutil
import sys
from itertools import pairwise
from pathlib import Path

from PIL import Image

TILES = 3
"""A photograph is about 500 x 1260 pixels: three pieces are nearly square."""


def lay_out(source: Path, out: Path) -> None:
    """Copy every photograph with its label to its place, and its tiles to theirs."""
    labels = {path: _marked(path) for path in sorted(source.glob("kos*/Part*_label.bmp"))}
    if not labels:
        raise SystemExit(f"{source} holds no kosNN/PartM_label.bmp: name the folder of KolektorSDD's parts")
    tested = {path.parent for path, marked in labels.items() if marked}
    for label, marked in labels.items():
        image = label.with_name(label.name.replace("_label.bmp", ".jpg"))
        kind = ("test/defect" if marked else "test/good") if label.parent in tested else "train/good"
        place = out / "commutator" / kind / label.parent.name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, place)
        shutil.copy(label, place)
        _cut(image, label, out / "tiles" / kind.partition("/")[0])


def _cut(image: Path, label: Path, place: Path) -> None:
    """A tile without a marked pixel is a good one, whatever the rest of its photograph shows."""
    with Image.open(image) as whole, Image.open(label) as mask:
        edges = [round(whole.height * tile / TILES) for tile in range(TILES + 1)]
        for tile, box in enumerate((0, top, whole.width, end) for top, end in pairwise(edges)):
            piece = mask.convert("L").crop(box)
            folder = place / ("defect" if piece.getbbox() else "good") / image.parent.name
            folder.mkdir(parents=True, exist_ok=True)
            name = f"{image.stem}-{tile}"
            whole.crop(box).save(folder / f"{name}.png")
            piece.save(folder / f"{name}_label.png")


def _marked(label: Path) -> bool:
    with Image.open(label) as mask:
        return mask.convert("L").getbbox() is not None


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    lay_out(Path(sys.argv[1]), Path(sys.argv[2]))
