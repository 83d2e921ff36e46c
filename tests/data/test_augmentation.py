"""Random crops and mirror images, against a loop over images and pixels, and in the loader."""

import pickle
from itertools import islice

import pytest
import torch
from torchvision.transforms import functional

from lnsgd.data import Batch, DeviceLoader, LabelledTensors
from lnsgd.data.augmentation import CropAndFlip, crop_and_flip
from tests.reference.streams import crop, places

N, BATCH, SEED = 23, 5, 3
ORDERS = ("shuffle", "replacement", "sequential")


def naive(image: torch.Tensor, drawn: tuple[int, int, int], padding: int) -> torch.Tensor:
    """One image, pixel by pixel."""
    first_row, first_column, mirrored = drawn
    channels, height, width = image.shape
    result = torch.zeros_like(image)
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                row = first_row + i - padding
                column = first_column + (width - 1 - j if mirrored else j) - padding
                if 0 <= row < height and 0 <= column < width:
                    result[c, i, j] = image[c, row, column]
    return result


def pixels(n: int, channels: int = 3, height: int = 7, width: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (n, channels, height, width), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float64], ids=str)
@pytest.mark.parametrize(("channels", "height", "width", "padding"), [(3, 5, 6, 2), (1, 4, 4, 0), (2, 3, 1, 4)])
def test_crops_equal_a_plain_loop(channels, height, width, padding, kind):
    shifts = range(2 * padding + 1)
    drawn = [(r, c, mirrored) for r in shifts for c in shifts for mirrored in (0, 1)]
    images = pixels(len(drawn), channels, height, width).to(kind)
    before = images.clone()
    found = crop_and_flip(images, torch.tensor(drawn), padding)
    assert found.dtype == kind
    assert torch.equal(found, torch.stack([naive(*pair, padding) for pair in zip(images, drawn)]))
    assert torch.equal(images, before)


def test_crops_equal_torchvision():
    images, drawn = pixels(200, 3, 32, 32), CropAndFlip(SEED).take(0, 200)
    expected = []
    for image, (row, column, mirrored) in zip(images, drawn.tolist()):
        cropped = functional.crop(functional.pad(image, [4]), row, column, 32, 32)
        expected.append(functional.hflip(cropped) if mirrored else cropped)
    assert torch.equal(CropAndFlip(SEED)(images, drawn), torch.stack(expected))


def test_the_central_crop_is_the_image():
    images = pixels(2)
    unchanged, mirrored = crop_and_flip(images, torch.tensor([[4, 4, 0], [4, 4, 1]]), 4)
    assert torch.equal(unchanged, images[0])
    assert torch.equal(mirrored, images[1].flip(2))


def test_a_share_of_a_batch_gets_its_share_of_crops():
    images, drawn = pixels(30), CropAndFlip(SEED).take(0, 30)
    whole = crop_and_flip(images, drawn, 4)
    assert torch.equal(crop_and_flip(images[1::3], drawn[1::3], 4), whole[1::3])
    assert crop_and_flip(images[:0], drawn[:0], 4).shape == (0, 3, 7, 6)


# --- in the loader ---


def loader(batch_size: int = BATCH, order="shuffle", seed: int = SEED, **options) -> DeviceLoader:
    data = LabelledTensors(pixels(N), torch.arange(N))
    return DeviceLoader(
        data, lambda x: x.double(), batch_size, order, seed, augmentation=CropAndFlip(seed, 2), **options
    )


def epoch(of: DeviceLoader, number: int) -> torch.Tensor:
    of.set_epoch(number)
    return torch.cat([batch.inputs for batch in of])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("number", [0, 1, 900])  # the last one begins in a later block
def test_example_n_of_the_run_has_crop_n(order, number):
    found, first = epoch(loader(order=order), number), number * N
    images = pixels(N)[places(first, N, N, order, SEED)]
    expected = [naive(image, crop(first + i, 2, SEED), 2) for i, image in enumerate(images)]
    assert torch.equal(found, torch.stack(expected).double())


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("batch_size", [1, 5, 23])
def test_crops_do_not_depend_on_batches_and_processes(batch_size, world_size):
    order = "sequential" if batch_size == N else "shuffle"  # as a full batch always is
    whole = epoch(loader(BATCH, order), 2)
    shares = [loader(batch_size, order, rank=rank, world_size=world_size) for rank in range(world_size)]
    for share in shares:
        share.set_epoch(2)
    for number, batches in enumerate(zip(*shares)):
        size = batches[0].global_size
        together = torch.empty(size, 3, 7, 6, dtype=torch.float64)
        for rank, batch in enumerate(batches):
            together[rank::world_size] = batch.inputs
        assert torch.equal(together, whole[number * batch_size : number * batch_size + size])


def test_crops_differ_between_epochs_and_seeds():
    first, second, other = epoch(loader(order="sequential"), 0), epoch(loader(order="sequential"), 1), None
    other = epoch(loader(order="sequential", seed=SEED + 1), 0)
    for one, two in ((first, second), (first, other), (second, other)):
        assert (one != two).flatten(1).any(1).sum() > N // 2


@pytest.mark.parametrize("given", range(6))
def test_resumes_in_the_middle_of_an_epoch(given):
    stopped, resumed = loader(), loader()
    stopped.set_epoch(1)
    list(islice(stopped, given))
    resumed.load_state_dict(pickle.loads(pickle.dumps(stopped.state_dict())))
    rest = [batch.inputs for batch in resumed]
    expected = epoch(loader(), 1)[given * BATCH :]
    assert torch.equal(torch.cat(rest), expected) if rest else not len(expected)


def test_augmentation_leaves_labels_and_batches_alone():
    plain = DeviceLoader(loader().data, lambda x: x.double(), BATCH, "shuffle", SEED)
    for one, two in zip(loader(), plain):
        assert isinstance(one, Batch)
        assert torch.equal(one.labels, two.labels)
        assert (one.inputs.shape, one.inputs.dtype) == (two.inputs.shape, two.inputs.dtype)
        assert one.global_size == two.global_size


def test_augmentation_leaves_images_in_memory_alone():
    the_loader = loader()
    epoch(the_loader, 0)
    assert torch.equal(the_loader.data.pool, pixels(N))
