"""What gpu.py measures, a process each: `gpu_parts.py NAME FOLDER OPTIONS`, the options as JSON.

Each part prints its findings as they come, lines that begin with "answer: " (`tell`). All have FOLDER, in which
`prepare` leaves a run and nnU-Net's folders.
"""

import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

from versus import NNUNET, nnunet_python, octkit_environment

ANSWER = "answer: "  # begins a line that is for gpu.py


def tell(during: list | None = None, text: str | None = None, **columns) -> None:
    """A row of the part's table, or a `text` of its own; `during` two times of day between which the GPU is judged."""
    row = {name.replace("_", " "): value for name, value in columns.items()}
    print("\n" + ANSWER + json.dumps({"during": during, "text": text, "row": row}), flush=True)


def described() -> str:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{gpu}; torch {torch.__version__}, CUDA {torch.version.cuda}"


def part_prepare(folder: Path, options) -> None:
    import training
    from prediction import goals_model

    configuration = goals_model(options.size).plan.configurations["2d"]
    options.batch = options.batch or configuration.batch_size
    size = SimpleNamespace(**vars(options) | {"size": "x".join(map(str, options.size)), "maps": 32, "judged": 1})
    training.prepare(folder, size, nnunet_python(options.environment))
    tell(text=f"{described()}; nnU-Net {NNUNET}. {training.patch(folder)}, {options.scans} phantoms of {size.size} px.")


def part_windows(_: Path, options) -> None:
    import torch
    import window
    from prediction import goals_model

    device, model = torch.device(options.device), goals_model(options.size)
    tell(text=window.windows(options, model))
    state, images = model.members[0].weights["0"], window.image_for(model, options.size).to(device)
    for name in ("as it is", "cudnn.benchmark", "compiled", "compiled, CUDA graphs"):
        way = window.Way(model, state, "bfloat16", "channels last", True, device)
        torch.backends.cudnn.benchmark = name == "cudnn.benchmark"
        if name.startswith("compiled"):
            way.network = torch.compile(way.network, mode="reduce-overhead" if "graphs" in name else None)
        with torch.inference_mode():
            first = window.timed(way, images)
            seconds = [window.timed(way, images) for _ in range(2 + options.rounds)][2:]
        tell(bfloat16_channels_last_as_trained=name, a_window=f"{1000 * statistics.median(seconds):.1f} ms",
             the_first=f"{first:.1f} s")
        if device.type == "cpu":
            break  # the rest is about GPUs


def trained(folder: Path, options, who: str) -> None:
    """Train as the commands do, and tell the steps after those that used what workers had made before."""
    import training

    warm = training.WARM_UP + 2 * options.workers
    chosen = SimpleNamespace(**vars(options) | {"steps": warm + options.steps, "epochs": 1, "validation": 2, "seed": 0,
                                                "run": "run", "dropped": 2, "keep": False})
    found = (training.train_ours if who == "octkit" else training.train_theirs)(folder, chosen)
    seconds = found["seconds"][warm:] or found["seconds"]
    tell([found["walls"][warm], found["walls"][-1]], contestant=who, workers=options.workers,
         a_step=f"{1000 * statistics.mean(seconds):.0f} ms", median=f"{1000 * statistics.median(seconds):.0f} ms",
         patches_a_second=f"{options.batch / statistics.mean(seconds):.1f}", mean_loss=f"{found['loss'][-1]:.2f}",
         peak_of_GPU_memory=megabytes(found["gpu_mb"]))


def part_ours(folder: Path, options) -> None:
    trained(folder, options, "octkit")


def part_theirs(folder: Path, options) -> None:
    trained(folder, options, "nnU-Net")


def megabytes(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} MB"


def open_training(folder: Path, options, changes: list[str], **replaced):
    """Fold 0's `Training` on the run in FOLDER with other settings, and with functions of its module replaced."""
    from unittest.mock import patch

    from octkit.common import settings
    from octkit.network.model import build_network
    from octkit.planning.run import Run
    from octkit.training import train

    path = folder / "run" / "settings.json"
    settings.with_overrides(settings.load(path), [f"train.workers={options.workers}", *changes]).save(path)
    run = Run(folder / "run")
    with ExitStack() as stack:
        for name, value in replaced.items():
            stack.enter_context(patch.object(train, name, value))
        return train.Training(train.open_fold(run, "2d", 0), build_network(run.plan, "2d", True), None)


def part_steps(folder: Path, options) -> None:
    import torch

    first, last = torch.contiguous_format, torch.channels_last
    ways = [("bfloat16, compiled", "bfloat16", "always", {}), ("bfloat16, as it is", "bfloat16", "never", {}),
            ("the same, channels first", "bfloat16", "never", {"memory_format": lambda *_, **__: first}),
            ("float32 (TF32), as it is", "float32", "never", {}),
            ("float32 (TF32), channels first", "float32", "never", {"memory_format": lambda *_, **__: first}),
            ("bfloat16, without cudnn.benchmark", "bfloat16", "never", {}),
            ("bfloat16, compiled, CUDA graphs", "bfloat16", "never", {"compiled": graphs}),
            ("bfloat16, compiled, channels first", "bfloat16", "always", {"memory_format": lambda *_, **__: first}),
            ("float32, compiled", "float32", "always", {"memory_format": lambda *_, **__: last})]
    batch = None
    for name, precision, compiling, replaced in ways if options.device == "cuda" else ways[:2]:
        batch = batch or whole_batch(open_training(folder, options, []))
        step_way(folder, options, batch, name, [f"train.precision={precision}", f"train.compile={compiling}"], replaced)


def graphs(network, *_):
    import torch

    return torch.compile(network, mode="reduce-overhead")


def whole_batch(training) -> list:
    import torch
    from torch.utils.data import default_collate

    made = default_collate([training.patches[n] for n in range(training.patches.batch_size)])
    return [part.pin_memory() if torch.cuda.is_available() else part for part in made]


def step_way(folder: Path, options, batch: list, name: str, changes: list[str], replaced: dict) -> None:
    import torch
    from training import Clock

    from octkit.network import memory
    from octkit.planning.run import Run

    gpu = options.device == "cuda"
    before = 0
    if gpu:
        torch.compiler.reset()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    training = open_training(folder, options, changes, **replaced)
    if "without cudnn" in name:
        torch.backends.cudnn.benchmark = False
    training.network.train()
    started = time.perf_counter()
    first = float(training.step(*batch))
    started = time.perf_counter() - started
    clock = Clock(options.device)
    for _ in range(options.steps):
        loss = training.step(*batch)
        clock.mark()
    found, last = clock.found(), float(loss)
    run = Run(folder / "run")
    need = memory.training_bytes(sum(part.numel() for part in training.network.parameters()), run.plan, "2d",
                                 run.settings.train, training.precision)
    seconds = statistics.median(found["seconds"][2:] or found["seconds"])
    peak = (torch.cuda.max_memory_allocated() - before) / 1e6 if gpu else None
    tell([found["walls"][2], found["walls"][-1]], way=name, a_step=f"{1000 * seconds:.1f} ms",
         patches_a_second=f"{len(batch[0]) / seconds:.1f}", the_first=f"{started:.1f} s",
         loss=f"{first:.3f} to {last:.3f}", memory_estimated=megabytes(need / 1e6), peak=megabytes(peak))


def part_feed(folder: Path, options) -> None:
    """How many batches so many workers make: a GPU is fed where its step takes longer."""
    from octkit.training.batches import batches

    training = open_training(folder, options, [])
    for workers in options.feeders:
        with batches(training.patches, 0, 10_000, workers, training.device) as source:
            for _ in range(1 + workers):
                next(source)
            started, count = time.perf_counter(), 0
            while count < workers or time.perf_counter() - started < options.seconds_a_feed:
                next(source)
                count += 1
            seconds = (time.perf_counter() - started) / count
        tell(workers=workers, patches_a_second=f"{training.patches.batch_size / seconds:.1f}",
             keeps_up_with_a_step_of=f"{1000 * seconds:.0f} ms",
             cores_seconds_a_patch=f"{workers * seconds / training.patches.batch_size:.3f}")


def part_faults(folder: Path, options) -> None:
    """A batch too large is refused by its estimate; where that is left out torch's error becomes octkit's; then on."""
    from unittest.mock import patch

    import torch

    from octkit.common.errors import OctkitError
    from octkit.network import memory
    from octkit.planning.run import Run

    run = Run(folder / "run")
    plan = run.plan
    run.plan_file.rename(kept := folder / "plan.json")
    from octkit.planning.planner import blueprint, with_batch_size

    changes = ["train.compile=never", "train.precision=bfloat16"]
    with_batch_size(plan, 2000).save(run.plan_file, blueprint(run.settings))
    try:
        open_training(folder, options, changes)
        found = "not refused"
    except OctkitError as error:
        found = str(error)
    kept.replace(run.plan_file)
    tell(asked_for="a batch of 2000 patches", found=found)
    training = open_training(folder, options, changes)
    training.network.train()
    images, masks = whole_batch(training)
    held, size = torch.cuda.memory_allocated() if options.device == "cuda" else 0, len(images)
    while options.device == "cuda":
        size *= 2
        many = -(-size // len(images))
        try:
            training.step(images.repeat(many, 1, 1, 1)[:size], masks.repeat(many, 1, 1)[:size])
        except OctkitError as error:
            tell(asked_for=f"a step of {size} patches, not estimated before", found=str(error))
            break
    with patch.object(memory, "check_training"):
        loss = float(training.step(images, masks))
    after = (torch.cuda.memory_allocated() - held) / 1e6 if options.device == "cuda" else 0
    tell(asked_for=f"then a step of {len(images)}", found=f"loss {loss:.3f}, {after:.0f} MB more held than before")


def part_scans(folder: Path, options) -> None:
    """Where the time of a scan goes with the model in the box, and how its masks differ from the CPU's in float32."""
    import numpy as np
    import torch

    from octkit.inference import sliding_window
    from octkit.inference.predict import save_mask
    from octkit.inference.scan_result import predict_scan, with_boundaries
    from octkit.layers.seen import has_signal
    from octkit.phantoms.circle_scans import draw

    images = [draw(900 + n, options.size, glaucoma=n % 2 == 1).image[None].astype(np.float32) for n in range(4)]
    scratch, gpu = Path(tempfile.mkdtemp(dir=folder)), options.device == "cuda"
    for mirror in (False, True):
        for pixels in (sliding_window.GPU_PIXELS, 1):
            sliding_window.GPU_PIXELS = pixels
            predictor = sliding_window.Predictor.load("default", options.device, mirror=mirror, precision="bfloat16")
            spent, began = {"network": [], "boundaries": [], "writing": []}, time.time()
            for image in images[:1] + images * options.rounds:
                marks = [time.perf_counter()]
                found = predictor.predict_each(image)
                marks.append(time.perf_counter())
                result = with_boundaries(*found, predictor.model, True, None, has_signal(image))
                marks.append(time.perf_counter())
                save_mask(scratch, "scan", result.mask, predictor.model.labels, Path("scan.png"))
                marks.append(time.perf_counter())
                for seconds, (a, b) in zip(spent.values(), pairwise(marks), strict=True):
                    seconds.append(b - a)
            tell([began, time.time()], way="mirrored" if mirror else "plain",
                 windows_at_once=predictor.configs[0].windows,
                 **{name: f"{1000 * statistics.median(seconds[1:]):.0f} ms" for name, seconds in spent.items()},
                 peak_of_GPU_memory=megabytes(torch.cuda.max_memory_reserved() / 1e6 if gpu else None))
            sliding_window.GPU_PIXELS = 2**20
    exact = [predict_scan(sliding_window.Predictor.load("default", "cpu", mirror=False, precision="float32"), image,
                          circle=True) for image in images]
    for precision in ("float32", "bfloat16"):
        predictor = sliding_window.Predictor.load("default", options.device, mirror=False, precision=precision)
        ours = [predict_scan(predictor, image, circle=True) for image in images]
        pairs = list(zip(ours, exact, strict=True))
        equal = [np.mean(a.probabilities.argmax(0) == b.probabilities.argmax(0)) for a, b in pairs]
        drawn = [np.mean(a.mask == b.mask) for a, b in pairs]
        apart = max(float(np.abs(a.probabilities - b.probabilities).max()) for a, b in pairs)
        tell(text=f"Against float32 on the CPU, {precision} on {options.device}: {100 * np.mean(equal):.4f} % equal "
                  f"labels (worst scan {100 * min(equal):.4f} %), {100 * np.mean(drawn):.4f} % of the drawn masks; "
                  f"largest difference of a probability {apart:.1e}.")


def part_predict(folder: Path, options, mirror: bool = False) -> None:
    import prediction

    scratch = Path(tempfile.mkdtemp(dir=folder))
    chosen = SimpleNamespace(**vars(options) | {"mirror": mirror, "rounds": 1, "precisions": ["bfloat16"],
                                                "threads": options.cores})
    began = time.time()
    text = prediction.times(chosen, nnunet_python(options.environment), scratch)
    tell([began, time.time()], text=text)


def part_mirrored(folder: Path, options) -> None:
    part_predict(folder, options, mirror=True)


def part_resume(folder: Path, options) -> None:
    """The command killed in its second epoch and given again, against one that was left alone."""
    import shutil

    import pandas as pd

    from octkit.common import settings
    from octkit.network.model import finished_weights
    from octkit.planning.run import Run

    command, environment = [sys.executable, "-m", "octkit", "train"], octkit_environment(options.cores)
    runs = [folder / name for name in ("left", "killed")]
    for run in runs:
        shutil.copytree(folder / "run", run, ignore=shutil.ignore_patterns("models"))
        settings.with_overrides(settings.load(run / "settings.json"), [
            "train.epochs=3", "train.iterations_per_epoch=6", "train.validation_iterations=1", "train.compile=never",
            "train.precision=bfloat16", f"train.workers={min(options.workers, 4)}"]).save(run / "settings.json")
    left = subprocess.Popen([*command, runs[0]], env=environment)
    killed = subprocess.Popen([*command, runs[1]], env=environment)
    log = Run(runs[1]).fold("2d", 0) / "log.csv"
    while killed.poll() is None and not log.exists():
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    done = len(pd.read_csv(log))
    again = subprocess.run([*command, runs[1]], env=environment, capture_output=True, encoding="utf-8", check=False)
    said = next((line for line in (again.stdout + again.stderr).splitlines() if "goes on" in line), "nothing of it")
    if left.wait() or again.returncode:
        sys.exit(f"exit codes {left.returncode}, {again.returncode}: {again.stdout}{again.stderr}")
    one, other = (finished_weights(Run(run), "2d", 0) for run in runs)
    apart = max(float((one[name] - other[name]).norm() / one[name].norm().clamp(min=1e-12)) for name in one)
    losses = [pd.read_csv(Run(run).fold("2d", 0) / "log.csv")["train_loss"].round(4).tolist() for run in runs]
    tell(killed_after_epoch=done, then=said, losses_undisturbed=str(losses[0]), losses_resumed=str(losses[1]),
         largest_relative_difference_of_a_weight=f"{apart:.1e}")


def planned_batch(folder: Path) -> int | None:
    path = folder / "run" / "plan.json"
    if not path.exists():
        return None
    return json.loads(path.read_text(encoding="utf-8"))["configurations"]["2d"]["batch_size"]["value"]


def main() -> None:
    name, folder, options = sys.argv[1], Path(sys.argv[2]), SimpleNamespace(**json.loads(sys.argv[3]))
    options.environment, options.size = Path(options.environment), tuple(options.size)
    options.batch = options.batch or planned_batch(folder)
    {"prepare": part_prepare, "windows": part_windows, "ours": part_ours, "theirs": part_theirs, "steps": part_steps,
     "faults": part_faults, "scans": part_scans, "predict": part_predict, "feed": part_feed, "resume": part_resume,
     "mirrored": part_mirrored}[name](folder, options)


if __name__ == "__main__":
    main()
