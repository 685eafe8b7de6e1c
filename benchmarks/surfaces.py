"""How long the five ordered boundaries of a scan take, and how near the truth they lie, on phantoms.

Run by hand, on one core, from the project's root:

    OMP_NUM_THREADS=1 PYTHONPATH=. .venv/bin/python benchmarks/surfaces.py --scans 5 --repeats 5

Probabilities are simulated: the phantom's labels, blurred by 2 px, as logits with noise that is smooth over 3 px.
Results stand in benchmarks/README.md.
"""

import argparse
import time

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import softmax

from octkit.layers.boundaries import mask_from, ordered_boundaries
from octkit.phantoms.circle_scans import draw

SIZES = ((256, 320), (496, 768), (800, 1100))  # the demo's, Spectralis, GOALS


def simulated(mask: np.ndarray, seed: int) -> np.ndarray:
    """Probabilities (4, H, W) float32 of a network that is mostly right."""
    one_hot = np.stack([mask == label for label in range(4)]).astype(np.float32)
    logits = np.log(np.clip(gaussian_filter(one_hot, (0, 2, 2)), 1e-4, 1))
    noise = np.random.default_rng(seed).standard_normal(one_hot.shape)
    return softmax(logits + 4 * gaussian_filter(noise, (0, 3, 3)), axis=0).astype(np.float32)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--scans", type=int, default=5)
    options.add_argument("--repeats", type=int, default=5)
    chosen = options.parse_args()
    for size in SIZES:
        wall, processor, errors, wrong = [], [], [], []
        for seed in range(chosen.scans):
            phantom = draw(seed, size, glaucoma=seed % 2 == 1)
            probabilities = simulated(phantom.mask, seed)
            for _ in range(chosen.repeats):
                start, started = time.perf_counter(), time.process_time()
                boundaries, _ = ordered_boundaries(probabilities, circular=True)
                wall.append(time.perf_counter() - start)
                processor.append(time.process_time() - started)
            errors.append(np.abs(boundaries - phantom.boundaries[[0, 1, 2, 8, 9]]).mean(axis=1))
            wrong.append([(labels != phantom.mask).mean() for labels in
                          (probabilities.argmax(0), mask_from(boundaries, size[0]))])
        print(f"{size[0]} x {size[1]}: median {np.median(wall):.3f} s wall, {np.median(processor):.3f} s processor; "
              f"mean error (px) {np.round(np.mean(errors, axis=0), 2).tolist()}; wrong pixels "
              f"{100 * np.mean(wrong, axis=0)[0]:.2f} % by argmax, {100 * np.mean(wrong, axis=0)[1]:.2f} % drawn")


if __name__ == "__main__":
    main()
