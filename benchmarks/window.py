"""One window of a network by every way to compute it on this CPU: seconds, and how far the logits are from float64's.

    PYTHONPATH=. .venv/bin/python benchmarks/window.py                    the network that is planned for GOALS
    PYTHONPATH=. .venv/bin/python benchmarks/window.py --model default    a trained model's first network, on a phantom

The ways take turns. "As trained" is by the functions with which training computes (instance norm), as in nnU-Net.
Also: four windows at once against four in turn, and how long torch.compile takes and what it gains in a training
step. With --write the table goes into benchmarks/README.md.
"""

import argparse
import statistics
import time
from functools import partial

import torch
from prediction import goals_model
from versus import alternate, machine, table, write_section

from octkit.network import memory
from octkit.network.model import autocast, build_network, working_precision
from octkit.network.model_file import open_model
from octkit.phantoms.circle_scans import draw
from octkit.training.loss import deep_supervision_loss

CPU = torch.device("cpu")
LAYOUTS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


class Way:
    """A network in torch: its precision, how its maps lie, and by which functions it computes."""

    def __init__(self, model, state, precision: str, layout: str, as_trained: bool, device: torch.device = CPU):
        self.precision, self.layout, self.device = precision, LAYOUTS[layout], device
        self.network = build_network(model.plan, model.members[0].config, False)
        self.network.load_state_dict(state)
        self.network.train(as_trained).to(device, memory_format=self.layout)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        with autocast(self.precision, self.device):
            return self.network(images.contiguous(memory_format=self.layout)).float()


def ways(model, state, device: torch.device) -> dict:
    found = {}
    for precision in dict.fromkeys(("float32", working_precision("bfloat16", device))):
        for name, as_trained in (("as trained", True), ("for prediction", False)):
            for layout in LAYOUTS:
                found[f"{precision}, {layout}, {name}"] = Way(model, state, precision, layout, as_trained, device)
    return found


def image_for(model, size: tuple[int, int]) -> torch.Tensor:
    """A phantom, z-scored, or where it is smaller than the window noise around it."""
    window = model.plan.configurations[model.members[0].config].patch_size
    scan = torch.from_numpy(draw(500, size, glaucoma=False).image).float()
    images = torch.randn(1, 1, *window, generator=torch.Generator().manual_seed(0))
    height, width = (min(pair) for pair in zip(size, window, strict=True))
    images[0, 0, :height, :width] = ((scan - scan.mean()) / scan.std())[:height, :width]
    return images


@torch.inference_mode()
def windows(options, model) -> str:
    state = next(iter(model.members[0].weights.values()))
    device = torch.device(options.device)
    images = image_for(model, options.size).to(device)
    exact = Way(model, state, "float32", "channels first", True, device).network.double()(images.double())
    found = ways(model, state, device)
    logits = {name: way(images) for name, way in found.items()}
    seconds = alternate({name: partial(timed, way, images) for name, way in found.items()}, options.rounds)
    digits = 4 if images.is_cuda else 2
    rows = [[name, f"{statistics.median(seconds[name]):.{digits}f} s", f"{min(seconds[name]):.{digits}f} s",
             f"{float((logits[name] - exact).abs().max() / exact.std()):.1e}",
             f"{100 * float((logits[name].argmax(1) == exact.argmax(1)).double().mean()):.4f} %"] for name in found]
    text = table(["", "a window (median)", "fastest", "largest difference of a logit, in their deviations",
                  "equal labels"], rows)
    fastest = min(found, key=lambda name: min(seconds[name]))
    four = torch.cat([images] * 4)
    once = statistics.median(timed(found[fastest], four) for _ in range(options.rounds))
    turn = statistics.median(sum(timed(found[fastest], images) for _ in range(4)) for _ in range(options.rounds))
    return text + f"\n\nFour windows at once ({fastest}): {once:.{digits}f} s, in turn: {turn:.{digits}f} s."


def timed(call, images: torch.Tensor) -> float:
    start = time.perf_counter()
    call(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def steps(options) -> str:
    """A training step of batch 2 on 224 x 288 px, without and with torch.compile."""
    from octkit.network.unet import UNet

    rows = []
    precision = working_precision("bfloat16", CPU)
    layout = torch.contiguous_format if precision == "float32" else torch.channels_last
    for maps in ((32, 64, 128, 256, 512, 512), (16, 32, 64, 128, 128, 128)):
        strides, kernels = [(1, 1)] + [(2, 2)] * 5, [(3, 3)] * 6
        network = UNet(1, 4, maps, strides, kernels).to(memory_format=layout)
        images = torch.randn(2, 1, 224, 288).contiguous(memory_format=layout)
        masks = torch.randint(0, 4, (2, 224, 288))
        calls = {"as it is": network, "compiled": torch.compile(network)}
        contestants = {name: partial(step, call, images, masks, precision) for name, call in calls.items()}
        first = {name: contestant() for name, contestant in contestants.items()}
        later = alternate(contestants, 2 + options.rounds)
        rows += [[f"{maps[0]} to {maps[-1]} maps, {name}", f"{statistics.median(later[name][2:]):.3f} s",
                  f"{first[name]:.1f} s"] for name in calls]
    return table([f"forward and backward, 224 x 288 px, batch 2, {precision}", "a step (median)", "the first"], rows)


def step(call, images, masks, precision: str) -> float:
    start = time.perf_counter()
    with autocast(precision, CPU):
        loss = deep_supervision_loss(call(images), masks, True)
    loss.backward()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", help="a trained model instead of random weights of the GOALS plan")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="put the tables into benchmarks/README.md")
    options = parser.parse_args()
    options.device, options.size = "cpu", (800, 1100)
    memory.keep_freed_memory()
    model = open_model(options.model) if options.model else goals_model()
    window = model.plan.configurations[model.members[0].config].patch_size
    text = (f"{machine()}; torch {torch.__version__}, {torch.get_num_threads()} threads. A window of {window[0]} x "
            f"{window[1]} px, {options.rounds} rounds.\n\n{windows(options, model)}")
    if not options.model:
        text += f"\n\n{steps(options)}"
    print(text)
    if options.write:
        write_section("Ways to compute a window" + (f": {options.model}" if options.model else ""), text)


if __name__ == "__main__":
    main()
