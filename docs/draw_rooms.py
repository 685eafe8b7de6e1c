"""Draw docs/rooms.svg: the rooms of the package, their modules, and which room imports which, read from the code.

    .venv/bin/python docs/draw_rooms.py

An arrow leads from a room to one that it imports. Where it also gets there by way of other rooms, the arrow is left
out. `lessons` and `cli.py` use all rooms, and have none.
"""

import ast
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

PACKAGE = Path(__file__).resolve().parents[1] / "octkit"
# From the ground up: room -> column in which it stands.
FLOORS = ({"common": 1.2}, {"data": 1.2}, {"planning": 0.4, "evaluation": 1.9, "phantoms": 4},
          {"network": 0.3, "layers": 2.9},
          {"exchange": 0, "training": 1, "inference": 2, "classification": 3, "figures": 4}, {"lessons": 2}, {"cli": 2})
FREE = ("lessons", "cli")
WIDTH, LINE, GAP = 2.6, 0.17, 0.75  # of a room, of a line of text, between floors; in inches


def modules(room: str) -> list[str]:
    """The modules of a room, those of its inner rooms as "layouts/goals"."""
    paths = sorted((PACKAGE / room).rglob("*.py"))
    return [path.relative_to(PACKAGE / room).with_suffix("").as_posix() for path in paths if path.stem != "__init__"]


def imported_rooms(room: str) -> set[str]:
    """The other rooms that any module of a room imports."""
    paths = [PACKAGE / "cli.py"] if room == "cli" else (PACKAGE / room).rglob("*.py")
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("octkit."):
                found.add(node.module.split(".")[1])
    return found - {room}


def arrows() -> set[tuple[str, str]]:
    """(room, room that it imports), without those that other arrows imply."""
    below = {room: set() if room in FREE else imported_rooms(room) for floor in FLOORS for room in floor}

    def reached(room: str) -> set[str]:
        return below[room].union(*(reached(other) for other in below[room]))

    return {(room, other) for room in below for other in below[room]
            if not any(other in reached(between) for between in below[room] - {other})}


def draw(path: Path) -> None:
    heights = {room: LINE * (2.1 + len(modules(room))) for floor in FLOORS for room in floor}
    figure = Figure(figsize=(1, 1))
    FigureCanvasSVG(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    place, bottom, step = {}, 0.2, WIDTH + 0.4
    for floor in FLOORS:
        tallest = max(heights[room] for room in floor)
        place |= {room: (0.2 + column * step, bottom + tallest - heights[room]) for room, column in floor.items()}
        bottom += tallest + GAP
    widest = 5 * step
    for room, other in sorted(arrows()):
        (x, y), (to_x, to_y) = place[room], place[other]
        ax.annotate("", (to_x + WIDTH / 2, to_y + heights[other]), (x + WIDTH / 2, y),
                    arrowprops={"arrowstyle": "-|>", "color": "#8A8A8A", "lw": 1.1, "shrinkA": 0, "shrinkB": 0})
    for room, (x, y) in place.items():
        ax.add_patch(FancyBboxPatch((x, y), WIDTH, heights[room], boxstyle="round,pad=0,rounding_size=0.08",
                                    facecolor="#EEF4FA", edgecolor="#33658A", lw=1.2, zorder=3))
        ax.text(x + 0.12, y + heights[room] - 0.09, f"{room}/" if room != "cli" else "cli.py", va="top", fontsize=11,
                fontweight="bold", color="#1B3A57", zorder=4)
        ax.text(x + 0.12, y + heights[room] - 0.32, "\n".join(modules(room)), va="top", fontsize=8.5, linespacing=1.28,
                color="#222222", zorder=4)
    ax.set(xlim=(0, widest), ylim=(0, bottom - GAP + 0.2))
    ax.axis("off")
    figure.set_size_inches(widest, bottom - GAP + 0.2)
    with matplotlib.rc_context({"svg.hashsalt": "rooms", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(path, metadata={"Date": None, "Title": "The rooms of octkit"})


if __name__ == "__main__":
    draw(Path(__file__).with_name("rooms.svg"))
