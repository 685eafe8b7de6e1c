"""Glaucoma or not: a PaddlePaddle ResNet50 that reads a whole scan (team report, task 2).

The only module that imports paddle, which must never meet torch in one process. What training leaves in its folder:

    model.pdparams        the weights of the last epoch
    log.csv               a line an epoch
    splits.json           which training cases were learned from and which were held out
    outputs.csv           split, scan and log odds of glaucoma, for the held-out, validation and test cases
    weights_origin.json   where the first weights came from, and why from there
    trained.json          what the training was made from, written last: all of the above is there
"""

import hashlib
import json
import math
import os
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm.auto import tqdm

from octkit.classification.paddle_weights import read_weights
from octkit.common.errors import OctkitError, saying_what_is_kept
from octkit.common.files import only_file, read_arrays, read_json, replacing, set_aside, write_csv, write_json
from octkit.common.hashes import code_files
from octkit.common.machine import find_openmp
from octkit.common.messages import say
from octkit.common.processes import cores, let_mkl_use_avx2
from octkit.common.settings import PROJECT, ClassifySettings, Settings
from octkit.data.dataset import Dataset
from octkit.data.image_files import read_image
from octkit.evaluation.diagnosis import auc_interval
from octkit.planning.folds import Split, hold_out

find_openmp()
with warnings.catch_warnings():  # of a compiler's cache, which nothing here needs
    warnings.filterwarnings("ignore", "No ccache found")
    import paddle

    paddle.disable_signal_handler()  # it prints a C++ traceback when a kernel is ended
from paddle.utils.download import WEIGHTS_HOME, get_weights_path_from_url  # noqa: E402
from paddle.vision.models.resnet import model_urls, resnet50  # noqa: E402

CROP = (0.9, 1.1)  # the report's range of a random crop's scale and ratio
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the pixels behind those weights
CONNECT_SECONDS = 5  # how long to wait for Paddle's server to answer at all
RANDOM = "random initialisation"
OUTPUTS = ("split", "scan", "log_odds")  # columns of outputs.csv
# What a training that has ended has left.
TRAINED = ("trained.json", "splits.json", "log.csv", "model.pdparams", "weights_origin.json")
CODE_ROOMS = ("octkit.classification", "octkit.evaluation")  # after a change of what is imported it trains again


def load_images(paths: Iterable[Path], size: int) -> np.ndarray:
    """Read scans once and shrink them to squares: (n, size, size) uint8."""
    images = (np.rint(read_image(path)[0]).astype(np.uint8) for path in paths)
    return np.stack([cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image in images])


def augment(image: np.ndarray, seed: tuple[int, ...], rotation_degrees: float = 30.0, vertical_flip: bool = True,
            ) -> np.ndarray:
    """Random crop (scale and ratio 0.9-1.1), flips and rotation in one warp: (H, W) uint8 -> (H, W) uint8.

    `seed` alone decides. What lies outside of the image is black. Source: team report, task 2.
    """
    draw, (height, width) = np.random.default_rng(seed), image.shape
    scale, ratio = draw.uniform(*CROP, size=2)
    crop = np.array([width * math.sqrt(scale * ratio), height * math.sqrt(scale / ratio)])  # x, y
    shift = draw.uniform(-0.5, 0.5, 2) * np.abs(np.array([width, height]) - crop)
    flip = np.array([-1 if draw.random() < 0.5 else 1, -1 if vertical_flip and draw.random() < 0.5 else 1])
    angle = math.radians(draw.uniform(-rotation_degrees, rotation_degrees))
    # For each pixel of the result: its place in the source, both measured from the middle.
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix, middle = turn @ np.diag(flip * crop / (width, height)), np.array([width - 1, height - 1]) / 2
    matrix = np.column_stack([matrix, middle + shift - matrix @ middle])
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _set_weights(network: paddle.nn.Layer, weights: dict[str, np.ndarray], path: Path, head: bool) -> None:
    """Copy arrays into the network; without `head` its last layer is left as it is."""
    state = network.state_dict()
    for name in state:
        if head or not name.startswith("fc."):
            found, expected = weights[name].shape if name in weights else "nothing", tuple(state[name].shape)
            if found != expected:
                raise OctkitError(f"{path}: found {found} for {name}, expected {expected} as in a ResNet50")
            state[name] = paddle.to_tensor(weights[name])
    network.set_state_dict(state)


def start_weights(network: paddle.nn.Layer, settings: ClassifySettings) -> dict[str, str]:
    """Give the network its first weights and say where they came from.

    A file named in the settings comes first (its SHA-256 must be the one stated), then Paddle's own download, then
    random weights. Returns {"origin", "reason", ...} and says the same. Raises OctkitError for a named file that is
    missing, has another checksum, or does not fit.
    """
    path: Path | None = None
    origin = {"origin": RANDOM, "reason": 'classify.pretrained is "none"'}
    if settings.weights is not None:
        path = PROJECT / settings.weights
        origin = _checked(path, settings.weights_sha256)
    elif settings.pretrained == "imagenet":
        path, origin = _paddles_weights()
    if path is not None:
        _set_weights(network, read_weights(path), path, head=False)
    what = "RANDOM WEIGHTS, not ImageNet's" if path is None else "ImageNet's weights"
    say(f"The classifier starts from {what} ({origin['origin']}: {origin['reason']})")
    return origin


def _checked(path: Path, expected: str | None) -> dict[str, str]:
    try:
        found = hashlib.sha256(only_file(path, "weights", 2).read_bytes()).hexdigest()
    except OSError as error:
        raise OctkitError(f"{path}: cannot be read ({error.strerror}), see classify.weights") from None
    if expected is None or found != expected.lower():
        raise OctkitError(f"{path}: found SHA-256 {found}, expected {expected} (classify.weights_sha256)")
    return {"origin": "imagenet file", "reason": f"classify.weights names {path.name}", "sha256": found}


def _paddles_weights() -> tuple[Path | None, dict[str, str]]:
    url, md5 = model_urls["resnet50"]
    try:
        if not (Path(WEIGHTS_HOME) / Path(url).name).exists():
            # Paddle's own download has no time-out and three tries: ask first whether anybody answers.
            urllib.request.urlopen(url, timeout=CONNECT_SECONDS).close()
        path = Path(get_weights_path_from_url(url, md5))
    except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: Paddle's "retry limit"
        reason = f"Paddle's download of the ImageNet weights failed ({type(error).__name__}: {error})"
        return None, {"origin": RANDOM, "reason": reason, "url": url}
    return path, {"origin": "paddle download", "reason": f"{url}, MD5 {md5} as Paddle states it", "url": url}


def train(dataset: Dataset, settings: Settings, out_dir: Path, split: Split | None = None) -> None:
    """Train the classifier on the data set's training cases and leave the files named above in `out_dir`.

    `split` names the cases to learn from and to hold out; by default `folds.hold_out` draws them.
    A stopped training goes on from its last epoch and ends with the same bits. One that has ended is not repeated where
    its settings, pixels and labels are the same, only its outputs are; where they are not, it is kept beside, in
    before-1.<name>. The weights kept are the last epoch's: with a dozen held-out cases the best epoch is mostly luck.
    Raises OctkitError for unlabelled cases, bad weights and a rate that diverges.
    """
    out_dir, chosen = Path(out_dir), settings.classify
    split = split or hold_out(dataset.train, chosen.train_fraction, settings.seed)
    cases, images, labels = {case.name: case for case in dataset.train}, {}, {}
    for part, names in split.items():
        images[part] = load_images([cases[name].image for name in names], chosen.image_size)
        labels[part] = np.array([cases[name].glaucoma for name in names], np.int64)
    if _is_trained(out_dir, key := _key(settings, images, labels), chosen):
        say(f"{out_dir.name}: the classifier has been trained before, on the same pixels with the same settings")
    else:
        if (out_dir / "trained.json").exists() and read_json(out_dir / "trained.json") != {"made_from": key}:
            kept = set_aside(out_dir, (*TRAINED, "outputs.csv"))
            say(f"{out_dir.name}: pixels, settings or code have changed; what was trained before is kept in {kept}")
        (out_dir / "trained.json").unlink(missing_ok=True)
        write_json(out_dir / "splits.json", split)
        _train(images, labels, settings, key, out_dir)
    read = reader([out_dir], settings)
    rows = [("held out", name, found) for name, found in zip(split["validation"], read(images["validation"]),
                                                             strict=True)]
    for part, its in (("validation", dataset.validation), ("test", dataset.test)):
        found = read(load_images([case.image for case in its], chosen.image_size)) if its else ()
        rows += [(part, case.name, value) for case, value in zip(its, found, strict=True)]
    write_csv(out_dir / "outputs.csv", OUTPUTS, [(part, name, f"{value:.9g}") for part, name, value in rows])
    write_json(out_dir / "trained.json", {"made_from": key})
    (out_dir / "checkpoint.npz").unlink(missing_ok=True)


def _is_trained(folder: Path, key: str, chosen: ClassifySettings) -> bool:
    """Whether a training with this key has ended here; one without ImageNet's weights stands while there are none."""
    if not all((folder / name).exists() for name in TRAINED):
        return False
    lacks = chosen.pretrained != "none" and read_json(folder / "weights_origin.json")["origin"] == RANDOM
    return read_json(folder / "trained.json") == {"made_from": key} and not (lacks and _paddles_weights()[0])


def _train(images: dict[str, np.ndarray], labels: dict[str, np.ndarray], settings: Settings, key: str,
           out_dir: Path) -> None:
    """Train to the end, from the checkpoint where there is one: weights, their origin, log and metrics."""
    chosen, network = settings.classify, _network(settings)
    optimiser = paddle.optimizer.Adam(chosen.initial_rate, parameters=network.parameters())
    checkpoint = out_dir / "checkpoint.npz"
    if not (rows := _load_checkpoint(checkpoint, key, network, optimiser)):
        write_json(out_dir / "weights_origin.json", start_weights(network, chosen))
    batches = math.ceil(len(labels["train"]) / chosen.batch_size)
    with saying_what_is_kept(checkpoint), tqdm(total=chosen.epochs * batches, initial=len(rows) * batches,
                                               desc="classifier", unit="step") as bar:
        for epoch in range(len(rows), chosen.epochs):
            start = time.perf_counter()
            loss = _train_epoch(network, optimiser, images["train"], labels["train"], settings, epoch, bar)
            odds, truth = _log_odds(network, images["validation"], chosen.batch_size), labels["validation"]
            if not (math.isfinite(loss) and np.isfinite(odds).all()):
                raise OctkitError(f"classify.initial_rate: found {chosen.initial_rate:g}, which made the training "
                                  f"diverge in epoch {epoch + 1}; expected a lower one")
            rows.append({
                "epoch": epoch + 1, "train_loss": loss, "validation_loss": _cross_entropy(odds, truth),
                "validation_auc": auc_interval(truth, odds, range(len(truth))).as_json()["mean"],
                "learning_rate": optimiser.get_lr(), "seconds": round(time.perf_counter() - start, 3)})
            write_csv(out_dir / "log.csv", list(rows[0]), [list(row.values()) for row in rows])
            _save_checkpoint(checkpoint, key, network, optimiser, rows)  # last, so that the log never falls behind
    with replacing(out_dir / "model.pdparams") as temporary:
        paddle.save(network.state_dict(), str(temporary))


def _network(settings: Settings) -> paddle.nn.Layer:
    """A ResNet50 for two classes with seeded random weights, on the device of the settings."""
    gpu = settings.device != "cpu" and paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    if settings.device == "cuda" and not gpu:
        raise OctkitError('device: found "cuda", but this paddlepaddle sees no GPU; expected "auto" or "cpu"')
    paddle.set_device("gpu" if gpu else "cpu")
    let_mkl_use_avx2()
    # Threads that wait sleep. Paddle's own way, to give the core away again and again, loses it on a shared machine.
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    paddle.base.core.set_num_threads(cores())  # Paddle's own default is one thread
    paddle.seed(settings.seed)
    # Adam's state goes by names that count up over a process: begin anew, or a checkpoint fits no other process.
    paddle.utils.unique_name.switch()
    return resnet50(num_classes=2)


def _tensor(images: np.ndarray) -> paddle.Tensor:
    """(n, H, W) uint8 -> (n, 3, H, W) float32: the grey scan three times, scaled as ImageNet's images were."""
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return paddle.to_tensor((images[:, None].astype(np.float32) / 255 - mean) / std)


def _train_epoch(network: paddle.nn.Layer, optimiser: paddle.optimizer.Optimizer, images: np.ndarray,
                 labels: np.ndarray, settings: Settings, epoch: int, bar: tqdm) -> float:
    """One pass over the images in a new order, each augmented anew. Returns the mean loss."""
    chosen = settings.classify
    network.train()
    order, total = np.random.default_rng((settings.seed, epoch)).permutation(len(labels)), 0.0
    # Batches of nearly one size: batch normalisation cannot do with a rest of one.
    for batch in np.array_split(order, math.ceil(len(order) / chosen.batch_size)):
        pixels = np.stack([augment(images[i], (settings.seed, epoch, int(i)), chosen.rotation_degrees,
                                   chosen.vertical_flip) for i in batch])
        loss = paddle.nn.functional.cross_entropy(network(_tensor(pixels)), paddle.to_tensor(labels[batch]))
        loss.backward()
        optimiser.step()
        optimiser.clear_grad()
        total += float(loss) * len(batch)
        bar.set_postfix(epoch=epoch + 1, loss=f"{float(loss):.3f}", rate=f"{optimiser.get_lr():.1e}", refresh=False)
        bar.update()
    return total / len(order)


def _log_odds(network: paddle.nn.Layer, images: np.ndarray, batch_size: int) -> np.ndarray:
    """The network's log odds of glaucoma for each image, (n,) float64, in evaluation mode."""
    network.eval()
    with paddle.no_grad():
        logits = [network(_tensor(images[i:i + batch_size])).numpy() for i in range(0, len(images), batch_size)]
    healthy, glaucoma = np.concatenate(logits).astype(float).T
    return glaucoma - healthy


def _cross_entropy(log_odds: np.ndarray, labels: np.ndarray) -> float:
    return float(np.logaddexp(0, np.where(labels == 1, -log_odds, log_odds)).mean())


def _key(settings: Settings, images: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> str:
    """A hash of all that decides the training: its settings, the seed, pixels and labels, and this code."""
    without = {"compare_fractions", "compare_seeds", "nested"}
    code = "".join(path.read_text(encoding="utf-8")
                   for path in code_files("octkit.classification.resnet50", CODE_ROOMS))
    chosen = f"{settings.classify.model_dump_json(exclude=without)} {settings.seed} {settings.device}"
    digest = hashlib.sha256(f"{chosen}{code}".encode())
    for array in (*images.values(), *labels.values()):
        digest.update(array.tobytes())
    return digest.hexdigest()


def _save_checkpoint(path: Path, key: str, network: paddle.nn.Layer, optimiser: paddle.optimizer.Optimizer,
                     rows: list[dict]) -> None:
    """The state after an epoch as one .npz of plain arrays: weights, Adam's moments, the log so far."""
    state = network.state_dict() | {f"adam/{name}": value for name, value in optimiser.state_dict().items()}
    arrays: dict[str, Any] = {name: value.numpy() for name, value in state.items() if isinstance(value, paddle.Tensor)}
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, key=np.array(key), rows=np.array(json.dumps(rows)), **arrays)


def _load_checkpoint(path: Path, key: str, network: paddle.nn.Layer, optimiser: paddle.optimizer.Optimizer,
                     ) -> list[dict]:
    """Put the state back if there is one of the same training. Returns the log so far, empty without one."""
    if not path.exists():
        return []
    try:
        arrays = read_arrays(path, ["key", "rows"], "the classifier starts anew")
    except OctkitError as error:
        say(str(error))
        return []
    if str(arrays.pop("key")) != key:
        say(f"{path.name} belongs to other settings or images: the classifier starts anew")
        return []
    rows = json.loads(str(arrays.pop("rows")))
    adam = {name: paddle.to_tensor(arrays.pop(name)) for name in list(arrays) if name.startswith("adam/")}
    network.set_state_dict(arrays)
    optimiser.set_state_dict({name.removeprefix("adam/"): value for name, value in adam.items()})
    say(f"The classifier goes on after epoch {len(rows)}")
    return rows


def reader(folders: Sequence[Path], settings: Settings) -> Callable[[np.ndarray], np.ndarray]:
    """Images (n, size, size) uint8 -> the log odds of glaucoma (n,), the mean of the networks left in these folders."""
    networks = []
    for path in (Path(folder) / "model.pdparams" for folder in folders):
        networks.append(_network(settings))
        _set_weights(networks[-1], read_weights(path), path, head=True)

    def read(images: np.ndarray) -> np.ndarray:
        return np.mean([_log_odds(network, images, settings.classify.batch_size) for network in networks], axis=0)

    return read
