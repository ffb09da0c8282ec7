"""Pictures and pages from run directories; the page opened in Chromium where there is one."""

import json
import os
import re
import shutil
import subprocess
import sys
from html import escape

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from html_rules import assert_keeps_the_rules
from matplotlib import image

from gptjax.plot import plot
from gptjax.system.errors import UserError


def write_run(folder, *, knobs=True, **of_evaluations):
    """A run of forty updates, four of them evaluated."""
    folder.mkdir()
    records = [dict(kind="run", n_params=11, corpus_name="plays", corpus_floor_nats=0.83)]
    for step in range(0, 41, 10):
        loss = 4.2 - 0.1 * step + 0.003 * step**2 / 2
        records.append(
            dict(kind="eval", step=step, seconds=2.0 + step, val_loss=loss, val_sem=0.01)
            | dict(train_loss=4.1 - 0.06 * step, train_sem=0.01)
            | of_evaluations
        )
        records += [
            dict(kind="train", step=n, seconds=2.0 + n, loss=4 - 0.06 * n, step_ms=3.0 + n % 5)
            | dict(lr=1e-3 / n, grad_norm=2 / n)
            for n in range(step + 1, step + 11)
        ]
    seconds = dict(compile=2.0, step=0.2, eval=1.0)
    records.append(
        dict(kind="ledger", step=40, seconds=seconds, step_ms_median=5.0, step_ms_p95=7.0)
        | dict(step_ms_bins={"80": 38, "97": 2})
    )
    lines = [json.dumps(record) + "\n" for record in records]
    (folder / "metrics.jsonl").write_text("".join(lines))
    settings = {"train.batch_size": 3, "model.block_size": 5, "model.n_layer": 2}
    if knobs:
        (folder / "config.json").write_text(json.dumps(settings | {"model.n_embd": 4}))
    return folder


@pytest.fixture
def run_dir(tmp_path):
    return write_run(tmp_path / "a")


def test_a_picture_of_losses_over_seconds_is_the_default(run_dir, tmp_path, capsys):
    plot([f"one={run_dir}", f"two={run_dir}"], mark=["nanoGPT=1.8857"], png=str(tmp_path / "a.png"))
    assert image.imread(tmp_path / "a.png").shape[:2] == (588, 980)
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ["one: best val 2.5500 at step 30", "two: best val 2.5500 at step 30"]
    assert printed[2:] == [f"drawn: {tmp_path / 'a.png'}"]


def test_several_pictures_are_panels_of_one(run_dir, tmp_path):
    png = tmp_path / "a.png"
    plot([str(run_dir)], what=["losses", "learning_rate"], png=str(png))
    one_row = image.imread(png).shape
    plot([str(run_dir)], what=["all"], over=["updates", "tokens"], png=str(png))
    assert image.imread(png).shape[0] > 2 * one_row[0] and image.imread(png).shape[1] == one_row[1]


def test_a_page_has_all_and_names_what_it_has_not(run_dir, tmp_path, capsys):
    other = write_run(tmp_path / "b", knobs=False)
    html = tmp_path / "a.html"
    plot([f"<script>={run_dir}", str(other)], mark=["<b>=1.8857"], html=str(html))
    reader = assert_keeps_the_rules(html.read_text(encoding="utf-8"))
    assert len(reader.of("svg")) == 8 and len(reader.of("table")) == 1
    assert "Val of <script> falls from 4.2000 at update 0" in reader.of("svg")[0]["aria-label"]
    printed = capsys.readouterr().out
    for line in ("Losses over tokens seen: not known of b.", "Losses over FLOPs spent: not known"):
        assert line in "".join(reader.text["p"]) and f"not drawn: {line}" in printed
    plot([str(run_dir)], what=["ledger"], html=str(html))
    assert len(assert_keeps_the_rules(html.read_text(encoding="utf-8")).of("svg")) == 1


def test_what_is_asked_for_and_not_known_is_refused(tmp_path):
    run_dir = write_run(tmp_path / "b", knobs=False)
    png = tmp_path / "a.png"
    with pytest.raises(UserError, match="tokens seen are not known of it. Choose another --over"):
        plot([str(run_dir)], over=["tokens"], png=str(png))
    (run_dir / "metrics.jsonl").write_text(
        '{"kind": "eval", "step": 1, "val_loss": 2.0, "seconds": 1}\n'
        '{"kind": "train", "step": 1, "seconds": 1}\n'
    )
    with pytest.raises(UserError, match="--what: ledger; it is not known of any of the runs"):
        plot([str(run_dir)], what=["losses", "ledger"], png=str(png))
    assert not png.exists()
    plot([str(run_dir)], what=["all"], png=str(png))
    assert png.exists(), "of all, what is known"


@pytest.mark.parametrize("mark", ["1.8857", "=1.8", "a=b", "a=nan"])
def test_a_mark_that_is_none_is_refused(run_dir, tmp_path, mark):
    with pytest.raises(UserError, match="must be LABEL=LOSS"):
        plot([str(run_dir)], mark=[mark], png=str(tmp_path / "a.png"))


def test_without_a_file_or_its_folder_nothing_is_drawn(run_dir, tmp_path):
    with pytest.raises(UserError, match="--png or --html is required"):
        plot([str(run_dir)])
    for flag in ("png", "html"):
        with pytest.raises(UserError, match=f"--{flag}: .*; its folder does not exist"):
            plot([str(run_dir)], **{flag: str(tmp_path / "none" / "a.png")})


@pytest.mark.parametrize("png", ["losses", "losses.txt", "folder.png"])
def test_a_picture_that_would_be_written_elsewhere_is_refused(run_dir, tmp_path, png):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=r"--png: .* must end in \.png|--png: .* is a folder"):
        plot([str(run_dir)], png=str(tmp_path / png))


def test_without_matplotlib_the_extra_is_named(run_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for flag in ("png", "html"):
        with pytest.raises(UserError, match=r"needs matplotlib\. Install it: pip install -e"):
            plot([str(run_dir)], **{flag: str(tmp_path / "a.png")})


def test_the_script_takes_flags_again_and_again(run_dir, tmp_path):
    from runpy import run_path

    main = run_path("scripts/plot.py")["main"]
    html, png = tmp_path / "a.html", tmp_path / "a.png"
    main(
        [str(run_dir), "--over", "updates", "--over=flops", "--what", "losses"] + [f"--html={html}"]
    )
    assert html.read_text(encoding="utf-8").count("<svg") == 2
    main([str(run_dir), "--png", str(png), "--over", "updates", "--mark", "a=1.5"])
    assert png.exists()
    with pytest.raises(UserError, match="invalid choice"):
        main([str(run_dir), "--png", str(png), "--what", "loss"])


# What Chromium is told: dark or light, as the system would.
_SCHEMES = {"dark": 0, "light": 1}


@pytest.fixture
def chromium(tmp_path):
    """Opens a file in Chromium without a window; returns what it prints."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("wants chromium: apt-get install chromium")

    def opened(path, *flags, width=1280):
        command = [program, "--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        command += ["--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}"]
        command += ["--no-sandbox"] if os.getuid() == 0 else []
        command += [f"--window-size={width},1200", *flags, path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return opened


@pytest.fixture(scope="module")
def a_page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    run_dir, html = write_run(folder / "a"), folder / "page.html"
    plot([f"a_run_with_a_very_long_name_indeed_{'x' * 60}={run_dir}", str(run_dir)], html=str(html))
    return html


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_chromium_shows_the_page(a_page, tmp_path, chromium, width, scheme):
    shot = tmp_path / "shot.png"
    chromium(
        a_page,
        f"--screenshot={shot}",
        f"--blink-settings=preferredColorScheme={_SCHEMES[scheme]}",
        width=width,
    )
    pixels = image.imread(shot)[:, :, :3]
    assert pixels.shape[1] == width
    ground = pixels[2, 2]
    assert ground.mean() > 0.95 if scheme == "light" else ground.mean() < 0.15
    # Text and curves in many colours, on more than the first lines.
    is_drawn = np.abs(pixels - ground).max(axis=2) > 0.2
    assert 0.02 < is_drawn.mean() < 0.5 and is_drawn[len(pixels) // 2 :].mean() > 0.02
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    assert (spread > 0.4).mean() > 0.001, "colours"


def test_the_page_fits_a_phone_and_runs_no_script(a_page, tmp_path, chromium):
    """In a frame 360 pixels wide, which the page around it measures."""
    text = a_page.read_text(encoding="utf-8")
    hostile = text.replace("</body>", "<script>document.title = 'ran'</script></body>")
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe id="frame" width="360" height="600" srcdoc="{escape(hostile)}"></iframe>'
        """<script>addEventListener("load", () => {
            const page = document.getElementById("frame").contentDocument;
            const picture = page.querySelector("svg").getBoundingClientRect().width;
            const {clientWidth, scrollWidth} = page.documentElement;
            document.title = [clientWidth, scrollWidth, picture, page.title].join(";");
        })</script>""",
        encoding="utf-8",
    )
    title = re.search("<title>(.*?)</title>", chromium(frame, "--dump-dom"))
    client, scrolled, picture, name = title[1].split(";")
    assert float(scrolled) <= float(client) <= 360 and float(picture) > 300
    assert name.startswith("Runs: a_run"), "the page's own policy forbids the script"
