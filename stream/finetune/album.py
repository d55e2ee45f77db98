"""`Album`: the pictures to learn from, in the model's size, on the disk.

Owns: the folder of pictures and masks, and its making: a video is decoded once, whatever is drawn from it later. Made
by the main thread; read by any, also in other processes. Never: holds more than what it was asked for, or keeps a
picture that has no masks.

    OUT/pictures/<number>/000123.jpg    a picture, squeezed to a square as the model sees it
    OUT/pictures/<number>/000123.bits   its masks, a bit a pixel, zlib
    OUT/pictures/<number>/page.json     `Page`; written last, so that a clip that has one is done
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.whole_file import replaced
from stream.evaluate import Material
from stream.finetune.settings import FinetuneError
from stream.sequence import Image, LabelledFrame

# Colours are kept at full resolution: the pictures are small already.
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
PAGE = "page.json"
MASK_LEVEL = 0.5  # of a pixel's area


class Leaf(msgspec.Struct, frozen=True):
    """One picture: its place in the video, its objects, and the share of the picture that each covers."""

    place: int
    ids: tuple[int, ...]
    shares: tuple[float, ...]


class Page(msgspec.Struct, frozen=True):
    """One clip."""

    name: str
    num_annotated: int
    image_size: int
    leaves: tuple[Leaf, ...]


class Album:
    """`pages` is written by the thread that makes it, before anybody reads."""

    def __init__(self, folder: Path, image_size: int) -> None:
        self.folder, self.image_size = folder, image_size
        self.pages: list[Page] = []

    def make(self, clips: Sequence[Material]) -> Iterator[int]:
        """Decode what is not there yet; yields the number of pictures that are done."""
        num_done = 0
        for number, clip in enumerate(clips):
            page = self._find(number, clip)
            if page is None:
                for _ in self._draw(number, clip):
                    num_done += 1
                    yield num_done
                page = self._find(number, clip)
                assert page is not None, "a page that was just written can be read"
            else:
                num_done += len(page.leaves)
                yield num_done
            self.pages.append(page)
        if not any(len(page.leaves) > 1 and any(leaf.ids for leaf in page.leaves) for page in self.pages):
            raise FinetuneError("no clip shows an object on two pictures; expected masks that are not empty")

    def read(self, number: int, places: Sequence[int]) -> tuple[Image, dict[int, NDArray[np.bool_]]]:
        """Leaves of a clip by their number: pictures (t, h, w, 3), and the masks (t, h, w) of all their objects."""
        leaves = [self.pages[number].leaves[place] for place in places]
        images = np.stack([self._image(number, leaf) for leaf in leaves])
        size = self.image_size
        masks = {i: np.zeros((len(leaves), size, size), np.bool_) for leaf in leaves for i in leaf.ids}
        for time, leaf in enumerate(leaves):
            for object_id, mask in zip(leaf.ids, self._masks(number, leaf), strict=True):
                masks[object_id][time] = mask
        return images, masks

    def _find(self, number: int, clip: Material) -> Page | None:
        try:
            page = msgspec.json.decode((self._folder(number) / PAGE).read_bytes(), type=Page)
        except (OSError, msgspec.DecodeError):
            return None
        wanted = (clip.name, len(clip.truth.annotated), self.image_size)
        return page if (page.name, page.num_annotated, page.image_size) == wanted else None

    def _draw(self, number: int, clip: Material) -> Iterator[None]:
        folder, leaves = self._folder(number), []
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PAGE).unlink(missing_ok=True)
        wanted = frozenset(clip.truth.annotated)
        last = max(wanted)
        for picture in clip.open_footage().pictures(min(wanted)):
            if picture.index in wanted:
                leaves.append(self._press(folder, picture.image_hwc, clip.truth.frame(picture.index)))
                yield
            if picture.index >= last:
                break
        page = Page(clip.name, len(wanted), self.image_size, tuple(leaves))
        with replaced(folder / PAGE) as file:
            file.write(msgspec.json.encode(page))

    def _press(self, folder: Path, image_hwc: Image, frame: LabelledFrame) -> Leaf:
        """Write one picture and its masks."""
        size = (self.image_size, self.image_size)
        scaled = cv2.resize(image_hwc, size, interpolation=cv2.INTER_AREA)
        is_written = cv2.imwrite(str(folder / f"{frame.index:06d}.jpg"), scaled, JPEG)
        masks = {i: _scaled(mask, size) for i, mask in frame.masks.items()}
        seen = {i: mask for i, mask in masks.items() if mask.any()}
        bits = np.packbits(np.stack(list(seen.values()))) if seen else np.zeros(0, np.uint8)
        if not is_written:
            raise FinetuneError(f"{folder}: a picture cannot be written, expected a disk with room")
        (folder / f"{frame.index:06d}.bits").write_bytes(zlib.compress(bits.tobytes(), 1))
        return Leaf(frame.index, tuple(seen), tuple(round(float(mask.mean()), 6) for mask in seen.values()))

    def _image(self, number: int, leaf: Leaf) -> Image:
        path = self._folder(number) / f"{leaf.place:06d}.jpg"
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise FinetuneError(f"{path} is not there any more, expected what was written before; remove {path.parent}")
        return np.asarray(image, np.uint8)

    def _masks(self, number: int, leaf: Leaf) -> NDArray[np.bool_]:
        size = self.image_size
        path = self._folder(number) / f"{leaf.place:06d}.bits"
        try:
            bits = np.frombuffer(zlib.decompress(path.read_bytes()), np.uint8)
            count = len(leaf.ids) * size * size
            return np.unpackbits(bits, count=count).reshape(len(leaf.ids), size, size).astype(np.bool_)
        except (OSError, zlib.error, ValueError) as exc:
            raise FinetuneError(f"{path} cannot be read, expected masks; remove {path.parent}") from exc

    def _folder(self, number: int) -> Path:
        return self.folder / f"{number:05d}"


def _scaled(mask_hw: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels that are covered by half at least; what is too thin for that keeps its nearest pixels."""
    bits = mask_hw.astype(np.uint8)
    how = cv2.INTER_AREA if mask_hw.shape[0] > size[1] else cv2.INTER_LINEAR
    covered = np.asarray(cv2.resize(bits * 255, size, interpolation=how)) >= 255 * MASK_LEVEL
    if covered.any() or not mask_hw.any():
        return covered
    return np.asarray(cv2.resize(bits, size, interpolation=cv2.INTER_NEAREST)) > 0
