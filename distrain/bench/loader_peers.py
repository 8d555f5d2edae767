"""The peers of the loader benchmark that are whole loaders: torch, DALI, WebDataset, FFCV."""

from __future__ import annotations

import importlib
import io
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from distrain.bench.errors import Unavailable
from distrain.bench.loader_contenders import (
    CHUNK,
    Contender,
    PillowDataset,
    Workload,
    pillow,
    pixels_of,
)


def _peer(module: str, install: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(f"{module} cannot be imported ({error}); {install}") from None


class TorchLoader:
    """DataLoader + Pillow; worker processes beyond one thread."""

    name, exact = "torch", True

    def __init__(self, work: Workload) -> None:
        import torch.utils.data

        torch.set_num_threads(1)  # its own threads would spin while the next contender is timed
        workers = 0 if work.threads == 1 else work.threads
        data: Any = PillowDataset(work)
        self._loader = torch.utils.data.DataLoader(data, batch_size=CHUNK, num_workers=workers)

    def batches(self) -> Iterator[np.ndarray]:
        """Yield the loader's batches."""
        for batch in self._loader:
            yield batch.numpy()


class WebDataset:
    """Tar shards read in order, Pillow in worker processes beyond one thread."""

    name, exact = "webdataset", True

    def __init__(self, work: Workload) -> None:
        if work.is_raw:
            raise Unavailable("not measured on raw pictures")
        webdataset = _peer("webdataset", "pip install webdataset")
        workers = 0 if work.threads == 1 else work.threads
        self._folder = tempfile.TemporaryDirectory(prefix="distrain-bench-")
        shards = [str(Path(self._folder.name, f"{i}.tar")) for i in range(max(1, workers))]
        for first, shard in enumerate(shards):
            self._write(Path(shard), work, range(first, len(work.blobs), len(shards)))
        # With several workers batches come out of order; the check compares by index.
        crops, flips = work.crops.tolist(), work.flips.tolist()

        def decode(sample: dict[str, Any]) -> tuple[np.ndarray, int]:
            index = int(sample["__key__"])
            return pillow(sample["jpg"], crops[index], flips[index], work), index

        data = webdataset.WebDataset(shards, shardshuffle=False).map(decode).batched(CHUNK)
        self._loader = webdataset.WebLoader(data, batch_size=None, num_workers=workers)
        self._shape = (len(work.blobs), work.side, work.side, 3)

    @staticmethod
    def _write(path: Path, work: Workload, indices: range) -> None:
        with tarfile.open(path, "w") as tar:
            for index in indices:
                entry = tarfile.TarInfo(f"{index:06d}.jpg")
                entry.size = len(work.blobs[index])
                tar.addfile(entry, io.BytesIO(work.blobs[index]))

    def batches(self) -> Iterator[np.ndarray]:
        """Yield one array with everything in the order of the workload."""
        out = np.empty(self._shape, np.uint8)
        for images, indices in self._loader:
            out[np.asarray(indices)] = np.asarray(images)
        yield out


class Dali:
    """NVIDIA DALI on the CPU: sliced decode, triangular (antialiased) resize, flip."""

    name, exact = "dali", True

    def __init__(self, work: Workload) -> None:
        if work.is_raw:
            raise Unavailable("not measured on raw pictures")
        dali = _peer("nvidia.dali", "pip install distrain[dali]")
        fn, types = importlib.import_module("nvidia.dali.fn"), dali.types
        encoded = [np.frombuffer(blob, np.uint8) for blob in work.blobs]
        anchors = work.crops[:, :2].astype(np.int32)
        shapes = work.crops[:, 2:].astype(np.int32)
        flips = work.flips.astype(np.int32)

        def source(info: Any) -> tuple[np.ndarray, ...]:
            if info.idx_in_epoch >= len(encoded):
                raise StopIteration
            i = info.idx_in_epoch
            return encoded[i], anchors[i], shapes[i], flips[i]

        @dali.pipeline_def(batch_size=CHUNK, num_threads=work.threads, device_id=None)
        def pipeline() -> Any:
            jpeg, anchor, shape, flip = fn.external_source(
                source, num_outputs=4, batch=False, dtype=[types.UINT8, types.INT32, types.INT32, types.INT32]
            )
            # axes (1, 0): anchors and shapes are (x, y) and (width, height)
            image = fn.decoders.image_slice(jpeg, anchor, shape, axes=[1, 0], device="cpu")
            image = fn.resize(
                image,
                resize_x=work.side,
                resize_y=work.side,
                interp_type=types.INTERP_LINEAR,
                antialias=True,
            )
            return fn.flip(image, horizontal=flip)

        self._rounds = len(encoded) // CHUNK  # `run` takes multiples of CHUNK only
        try:
            self._pipeline = pipeline()
            self._pipeline.build()
        except RuntimeError as error:  # e.g. its codec library is a package of its own
            raise Unavailable(f"the pipeline does not build: {str(error).splitlines()[0]}") from error

    def batches(self) -> Iterator[np.ndarray]:
        """Yield the pipeline's batches of one epoch."""
        for _ in range(self._rounds):
            (images,) = self._pipeline.run()
            yield images.as_array()
        self._pipeline.reset()


class Ffcv:
    """FFCV's random resized crop from its own file; its crops are its own, so pixels are not compared."""

    name, exact = "ffcv", False

    def __init__(self, work: Workload) -> None:
        _peer(
            "ffcv",
            "pip install ffcv numba; it needs a compiler, libopencv-dev, libturbojpeg0-dev, pkg-config",
        )
        fields = importlib.import_module("ffcv.fields")
        decoders = importlib.import_module("ffcv.fields.rgb_image")
        loader = importlib.import_module("ffcv.loader")
        writer = importlib.import_module("ffcv.writer")
        self._folder = tempfile.TemporaryDirectory(prefix="distrain-bench-")
        path = str(Path(self._folder.name, "set.beton"))
        mode = "raw" if work.is_raw else "jpg"
        quality = {"orig": 95, "short256": 90}.get(work.name, 90)
        image = fields.RGBImageField(write_mode=mode, jpeg_quality=quality)
        dataset = writer.DatasetWriter(path, {"image": image}, num_workers=1)
        dataset.from_indexed_dataset(_Pixels(work))
        crop = decoders.RandomResizedCropRGBImageDecoder((work.side, work.side))
        self._loader = loader.Loader(
            path,
            batch_size=CHUNK,
            num_workers=work.threads,
            order=loader.OrderOption.SEQUENTIAL,
            os_cache=True,
            drop_last=False,
            pipelines={"image": [crop]},
        )

    def batches(self) -> Iterator[np.ndarray]:
        """Yield FFCV's batches."""
        for (images,) in self._loader:
            yield images


class _Pixels:
    """Decoded pictures, for a writer that encodes them itself."""

    def __init__(self, work: Workload) -> None:
        self._work = work

    def __len__(self) -> int:
        return len(self._work.blobs)

    def __getitem__(self, index: int) -> tuple[np.ndarray]:
        return (pixels_of(self._work, self._work.blobs[index]),)


PEERS: dict[str, type[Contender]] = {
    "torch": TorchLoader,
    "webdataset": WebDataset,
    "dali": Dali,
    "ffcv": Ffcv,
}
