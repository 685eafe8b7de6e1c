"""What all figures share: their colours, and how a figure shows itself and is saved."""

from IPython.core.formatters import DisplayFormatter
from PIL import Image

from octkit.data.labels import LAYERS
from octkit.figures import picture as picture_
from octkit.figures.colours import LAYER_COLOURS, label_colours
from octkit.planning.run import Run


def drawn(title: str) -> picture_.Picture:
    picture, ((ax,),) = picture_.new_picture(title)
    ax.plot([1], [1])
    return picture.with_alt("One point.")


def test_colours_are_okabe_and_itos_and_one_for_each_layer():
    assert label_colours(LAYERS) == {"rnfl": "#E69F00", "gcipl": "#56B4E9", "choroid": "#009E73"}
    others = label_colours(("disc", "gcipl", "cup"))
    assert others["gcipl"] == "#56B4E9"
    assert len(set(others.values()) | set(LAYER_COLOURS.values())) == 5


def test_a_figure_shows_itself_in_a_notebook_with_its_text_alternative():
    data, metadata = DisplayFormatter().format(drawn("Scan 7"))
    assert data["image/png"].startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"] == "One point."


def test_saving_keeps_title_and_text_and_gives_the_same_bytes_again(tmp_path):
    run, picture = Run(tmp_path), drawn("Scan „7“ <b>")
    assert picture_.save(run, picture, "01_scan") is picture
    with Image.open(run.figures / "01_scan.png") as image:
        assert (image.info["Title"], image.info["Description"]) == ("Scan „7“ <b>", "One point.")
    picture_.save(run, drawn("Scan „7“ <b>"), "again")
    one, other = sorted(run.figures.iterdir())  # and no temporary file
    assert one.read_bytes() == other.read_bytes()


def test_names_with_dollars_are_no_formulas():
    picture, ((ax,),) = picture_.new_picture("$x_{$")
    ax.plot([1, 2], [1, 1000], label="$y_{$")
    ax.set(yscale="log", title="$z_{$", xlabel="$a_{$")
    ax.set_xticks([1, 2], ["$b_{$", "c"])
    ax.legend()
    assert picture_.png(picture).startswith(b"\x89PNG")
