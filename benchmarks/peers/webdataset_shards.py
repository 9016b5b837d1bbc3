"""The peer webdataset 1.0.2: the same JPEG files in tar shards, read one after another, the same transform."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import webdataset
from peers.image_folder import TrainTransform
from torch import Tensor


class ShardLoader:
    """``epoch()`` gives batches [images, labels]. Shards are written to ``folder`` first, as many as the workers can
    share; the buffer that shuffles holds a batch or ten."""

    def __init__(
        self, paths: Sequence[str], labels: Sequence[int], transform: TrainTransform, *, batch_size: int, workers: int,
        folder: Path,
    ) -> None:  # fmt: skip
        shards = write_shards(paths, labels, folder, max(4, 2 * workers))
        self.transform = transform
        source = webdataset.WebDataset(
            [str(shard) for shard in shards], shardshuffle=len(shards), empty_check=False, seed=0
        )
        dataset = (
            source.shuffle(min(len(paths), 10 * batch_size)).decode("pilrgb").to_tuple("jpg", "cls")
            .map_tuple(transform, int).batched(batch_size)
        )  # fmt: skip
        self.loader = webdataset.WebLoader(
            dataset, batch_size=None, shuffle=False, num_workers=workers, persistent_workers=workers > 0
        )

    def epoch(self) -> Iterator[list[Tensor]]:
        return iter(self.loader)


def write_shards(paths: Sequence[str], labels: Sequence[int], folder: Path, count: int) -> list[Path]:
    """The files dealt out to ``count`` tar files."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = [folder / f"shard-{number:03d}.tar" for number in range(min(count, len(paths)))]
    for number, shard in enumerate(shards):
        with tarfile.open(shard, "w") as archive:
            for i in range(number, len(paths), len(shards)):
                for suffix, content in (("jpg", Path(paths[i]).read_bytes()), ("cls", str(labels[i]).encode())):
                    entry = tarfile.TarInfo(f"{i:08d}.{suffix}")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
    return shards
