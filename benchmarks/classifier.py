"""The classifier's ways to compute on a CPU: Paddle's dygraph, compiled (to_static), and both with oneDNN; and dygraph
without telling MKL that AMD's processors have AVX2 (`octkit.common.processes`).

    PYTHONPATH=. .venv/bin/python benchmarks/classifier.py [--size 256] [--write]

Each way is timed in a process of its own, in turn: a training step (augmentation included) and the outputs of a batch,
after a first one that may compile. The largest difference to dygraph of the outputs, and of the mean loss of the same
training steps, stands beside. nnU-Net has no classifier: this table says which way
`octkit.classification.resnet50` goes. With --write it goes into benchmarks/README.md.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from versus import alternate, finished, machine, octkit_environment, table, version_there, write_section

WAYS = ("dygraph", "dygraph, MKL as it comes", "dygraph oneDNN", "compiled", "compiled oneDNN")
ANSWER = "answer: "


def measure(way: str, size: int, batch: int, steps: int) -> dict:
    """Seconds of the first and of each further training step and output, the losses, and the outputs."""
    import numpy as np
    import paddle

    from octkit.classification import resnet50
    from octkit.common import settings

    paddle.set_flags({"FLAGS_use_mkldnn": "oneDNN" in way})
    base = settings.from_profile("goals")
    chosen = base.model_copy(update={"device": "cpu"})
    network = resnet50._network(chosen)
    optimiser = paddle.optimizer.Adam(learning_rate=1e-4, parameters=network.parameters())
    images = np.random.default_rng(0).integers(0, 256, (batch, size, size)).astype(np.uint8)
    labels = np.arange(batch) % 2
    called = paddle.jit.to_static(network) if "compiled" in way else network
    found = {"output": [], "step": [], "loss": []}
    network.eval()
    with paddle.no_grad():
        for _ in range(steps + 1):
            start = time.perf_counter()
            outputs = called(resnet50._tensor(images)).numpy()
            found["output"].append(time.perf_counter() - start)
    network.train()
    for number in range(steps + 1):
        start = time.perf_counter()
        pixels = np.stack([resnet50.augment(image, (0, number, i)) for i, image in enumerate(images)])
        loss = paddle.nn.functional.cross_entropy(called(resnet50._tensor(pixels)), paddle.to_tensor(labels))
        loss.backward()
        optimiser.step()
        optimiser.clear_grad()
        found["loss"].append(float(loss))
        found["step"].append(time.perf_counter() - start)
    return found | {"outputs": outputs.tolist()}


def ask(way: str, options) -> dict:
    run = finished([sys.executable, Path(__file__).resolve(), "--child", way, "--size", options.size, "--batch",
                    options.batch, "--steps", options.steps],
                   octkit_environment(options.threads) | ({"MKL_DEBUG_CPU_TYPE": "0"} if "MKL" in way else {}))
    line = next(line for line in run.output.splitlines() if line.startswith(ANSWER))
    return json.loads(line.removeprefix(ANSWER)) | {"peak_mb": run.peak_mb}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print("\n" + ANSWER + json.dumps(measure(options.child, options.size, options.batch, options.steps)))
        return
    found = alternate({way: lambda way=way: ask(way, options) for way in WAYS}, options.rounds)
    plain = found["dygraph"][0]
    rows = []
    for way, runs in found.items():
        medians = [statistics.median(second for run in runs for second in run[kind][1:]) for kind in ("step", "output")]
        firsts = [statistics.median(run[kind][0] for run in runs) for kind in ("step", "output")]
        apart = max(abs(a - b) for run in runs for row, other in zip(run["outputs"], plain["outputs"], strict=True)
                    for a, b in zip(row, other, strict=True))
        losses = max(abs(a - b) for run in runs for a, b in zip(run["loss"], plain["loss"], strict=True))
        rows.append([way, f"{medians[0]:.2f} s ({firsts[0]:.2f} s)", f"{medians[1]:.2f} s ({firsts[1]:.2f} s)",
                     f"{max(run['peak_mb'] for run in runs):.0f} MB", f"{apart:.1e}", f"{losses:.1e}"])
    text = (f"{machine()}; paddlepaddle {version_there(sys.executable, 'paddlepaddle')}. ResNet50, batches of "
            f"{options.batch} of {options.size} x {options.size} px, {options.threads} threads; the first call in "
            "brackets.\n\n" + table(["", "training step", "outputs of a batch", "peak memory", "outputs differ by",
                                     "losses differ by"], rows))
    print(text)
    if options.write:
        write_section(f"The classifier's ways to compute, {options.size} px", text)


if __name__ == "__main__":
    main()
