"""The explorable page in a real browser: opened from its file, offline, and clicked through."""

import math
import pathlib
import shlex
import shutil
import time

import pytest

from experiments import digits_noise
from launch import config_flags, serve
from noisegen import reports, storage, sweeps
from tests.reports.test_report import record_of

pytest.importorskip("bokeh", reason="pages are explorable with Bokeh")
api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
RESULTS = pathlib.Path(__file__).parents[2] / "experiments" / "results" / "digits_noise"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason=f"needs one of {', '.join(BROWSERS)}"),
]


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The page of committed results."""
    workdir = tmp_path_factory.mktemp("digits") / "sweep"
    shutil.copytree(RESULTS, workdir)
    return reports.write_report(sweeps.Sweep.open(workdir))


@pytest.fixture
def opened(browser):
    """opened(path, **options) opens a page; what the console says beside Bokeh's name fails."""
    contexts, said = [], []

    def open_page(path, **options):
        size = {"width": 1280, "height": 900}
        context = browser.new_context(viewport=size, offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text))
        page.goto(path.as_uri())
        page.wait_for_selector("html.ready", state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [text for text in said if not text.startswith("[bokeh")] == []


def figure(page, name, number=0):
    return page.locator(f"figure[data-name={name}]").nth(number)


# The page's place of a point: of the source of a figure's points, in the order of the page.
PLACE = """([number, source, index]) => {
  const [model] = Bokeh.documents[number].roots();
  const view = Bokeh.index.find_one(model);
  const {data} = model.renderers.filter((each) => each.tags.includes("points"))[source].data_source;
  const {left, top} = view.canvas_view.el.getBoundingClientRect();
  return [left + view.frame.x_scale.compute(data.x[index]),
          top + view.frame.y_scale.compute(data.y[index])];
}"""


def place(page, name, index, source=0, number=0):
    """Scrolls to a point of a figure and returns its place."""
    figure(page, name, number).locator(".plot").evaluate("e => e.scrollIntoView({block: 'center'})")
    names = page.locator("figure.explorable").evaluate_all("all => all.map(e => e.dataset.name)")
    document = [i for i, each in enumerate(names) if each == name][number]
    return page.evaluate(PLACE, [document, source, index])


def columns(page, name, column, source=0):
    """Returns a column of the points of a figure."""
    names = page.locator("figure.explorable").evaluate_all("all => all.map(e => e.dataset.name)")
    return page.evaluate(
        "([number, source, column]) => Array.from(Bokeh.documents[number].roots()[0].renderers"
        '.filter((each) => each.tags.includes("points"))[source].data_source.data[column])',
        [names.index(name), source, column],
    )


def tooltip(page):
    shown = page.locator(".bk-Tooltip:visible")
    shown.wait_for()
    return shown.evaluate("each => each.shadowRoot.textContent")


def title(page):
    return page.locator("#panel-title").inner_text()


def test_hovering_shows_the_runs_behind_a_point(report, opened):
    page = opened(report)
    x, y = place(page, "metric", 3)
    page.mouse.move(x - 2, y)
    page.mouse.move(x, y)
    text = tooltip(page)
    assert "batch size 32" in text and "best learning rate: 0.0625" in text
    assert text.count("(seed ") == 10


def test_a_click_on_a_cell_shows_its_curves(report, opened):
    page = opened(report)
    index = columns(page, "heatmap", "number").index("63.7")
    page.mouse.click(*place(page, "heatmap", index))
    page.locator("#panel").wait_for()
    assert title(page) == "no noise added, batch size 4, learning rate 0.0625: 1 run"
    curves = page.evaluate("Bokeh.documents.at(-1).roots()[0].renderers[0].data_source.data")
    assert len(curves["xs"]) == 1 and len(curves["ys"][0]) == 5
    assert curves["ys"][0][-1] == pytest.approx(63.7, abs=0.05)
    page.keyboard.press("Escape")
    assert page.locator("#panel").is_hidden()


def test_a_series_can_be_switched_off(report, opened):
    page = opened(report)
    assert figure(page, "heatmap", 1).is_visible()
    page.get_by_role("checkbox", name="noise of a small batch").uncheck()
    visible = "number => Bokeh.documents[number].roots()[0].renderers.filter((each) => each.name)"
    shown = page.evaluate(f"({visible}.map((each) => [each.name, each.visible]))(0)")
    assert {(name, is_shown) for name, is_shown in shown} == {("0", True), ("1", False)}
    assert figure(page, "heatmap", 0).is_visible() and figure(page, "heatmap", 1).is_hidden()
    page.get_by_role("checkbox", name="noise of a small batch").check()
    assert figure(page, "heatmap", 1).is_visible()


def test_an_axis_can_be_switched(report, opened):
    page = opened(report)
    before = [place(page, "metric", index)[0] for index in (0, 1, 2)]
    assert before[1] - before[0] == pytest.approx(before[2] - before[1], rel=0.02)  # logarithmic
    button = figure(page, "metric").get_by_role("button", name="log x")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    page.wait_for_timeout(300)
    after = [place(page, "metric", index)[0] for index in (0, 1, 2)]
    assert after[2] - after[1] == pytest.approx(2 * (after[1] - after[0]), rel=0.02)  # 4, 8, 16
    button.click()
    page.wait_for_timeout(300)
    assert [place(page, "metric", index)[0] for index in (0, 1, 2)] == pytest.approx(before)


@pytest.mark.parametrize(
    "text, found",
    [
        ("batch size=64 0.125 seed=3", 1),
        ("batch_size=64, learning_rate = 2^-3, seed=3", 1),
        ("reference=16 batch_size=512 1/16 seed=0", 1),
        ("batch=4 1/16", 1),
        ("0064b68703a209dd", 1),
        ("seed=12345", 0),
    ],
)
def test_a_run_is_found_by_its_numbers(report, opened, text, found):
    page = opened(report)
    page.get_by_label("Find runs by their numbers").fill(text)
    page.keyboard.press("Enter")
    if found:
        assert title(page).endswith(": 1 run") and page.locator("#panel tbody tr").count() == found
    else:
        assert "No run has all of these" in page.locator("#find output").inner_text()
        assert page.locator("#panel").is_hidden()


def test_the_copied_command_trains_the_run(report, opened):
    page = opened(report, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_label("Find runs by their numbers").fill("batch size=512 1/4 seed=3")
    page.keyboard.press("Enter")
    page.locator("#panel").get_by_role("button", name="Copy command").click()
    command = page.evaluate("navigator.clipboard.readText()")
    words = shlex.split(command)
    assert words[:4] == ["python", "-m", "launch.sweep", "--config=experiments/digits_noise.py"]
    assert words[-1].startswith("--workdir=sweeps/run_")
    config = digits_noise.get_config()
    config_flags.override(config, ["program", *words[4:-1]])
    task = storage.read_sweep(RESULTS)["task"]
    planned = digits_noise.get_sweep(config).planned
    assert words[-1].partition("run_")[2] in {sweeps.run_id(task, run) for run in planned}
    assert len(planned) <= 3  # this run, and those that have noise


def test_the_keyboard_reaches_what_the_pointer_does(report, opened):
    page = opened(report)
    order = []
    for _ in range(40):
        page.keyboard.press("Tab")
        order.append(
            page.evaluate("(e => e.ariaLabel || e.innerText || e.type)(document.activeElement)")
        )
    assert order.index("search") < order.index("checkbox") < order.index("log x")
    figure(page, "heatmap").locator(".plot").focus()
    page.keyboard.press("ArrowRight")
    first = title(page)
    page.keyboard.press("ArrowUp")
    assert title(page) != first and "learning rate" in title(page)
    assert page.locator("#status").inner_text().startswith("no noise added, batch size 4")
    page.keyboard.press("Escape")
    assert page.locator("#panel").is_hidden()


def luminance(color):
    numbers = [int(part) for part in color.strip("rgb()").split(",")]
    return sum(numbers) / 3


def test_a_dark_page_has_light_letters_in_its_plots(report, opened):
    inks = {}
    for scheme in ("light", "dark"):
        page = opened(report, color_scheme=scheme)
        inks[scheme] = page.evaluate(
            "Bokeh.documents.map((each) => each.roots()[0].below[0].major_label_text_color)"
        )
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (luminance(background) < 60) == (scheme == "dark")
    assert set(inks["light"]) == {"#22262b"} and set(inks["dark"]) == {"#e8eaed"}
    page.emulate_media(color_scheme="light")  # at dusk, and back
    color = "Bokeh.documents[0].roots()[0].below[0].major_label_text_color"
    page.wait_for_function(f"{color} === '#22262b'")


def test_print_shows_the_drawings(report, opened):
    page = opened(report)
    page.emulate_media(media="print")
    assert figure(page, "metric").locator(".drawing svg").is_visible()
    assert figure(page, "metric").locator(".plot").is_hidden()
    assert figure(page, "runs").is_hidden() and page.locator("#find").is_hidden()


def test_labels_are_shown_as_they_are(tmp_path, opened):
    label = "<img src=x onerror=alert(1)> @text $$x$$ &amp;"
    runs = sweeps.grid(batch_size=[64, 128], learning_rate=[0.5, 1], seed=[0])
    storage.open_workdir(tmp_path, "example", "task")
    with storage.RecordWriter(tmp_path) as writer:
        for run in runs:
            writer.append(record_of(run))
    protocol = sweeps.Protocol(max_extensions=0, series=lambda run: label)
    page = opened(reports.write_report(sweeps.Sweep(lambda: None, runs, protocol, tmp_path)))
    x, y = place(page, "metric", 0)
    page.mouse.move(x - 2, y)
    page.mouse.move(x, y)
    assert label in tooltip(page)
    assert page.locator("img").count() == 0


def test_a_served_page_is_loaded_again_when_it_is_written_again(tmp_path, browser):
    path = tmp_path / "report.html"
    path.write_text("<title>old</title><body></body>")
    with serve.Server(0) as server, browser.new_context() as context:
        server.show(path)
        page = context.new_page()
        page.goto(server.url)
        page.evaluate("document.body.classList.add('has-panel')")  # the reader has runs open
        path.write_text("<title>new</title><body></body>")
        server.show(path)
        page.wait_for_timeout(3000)
        assert page.title() == "old"
        page.evaluate("document.body.classList.remove('has-panel')")
        page.wait_for_function("document.title === 'new'")


def simulated(workdir, runs):
    """Writes a record of each run, with a curve of 50 evaluations."""
    storage.open_workdir(workdir, "big", "task", {"command": "noisegen sweep it.py"})
    epochs = [k / 2 for k in range(1, 51)]
    lines = []
    for run in runs:
        distance = math.log2(run["learning_rate"] / (2**-8 * run["batch_size"] ** 0.7))
        accuracy = max(0.1, 0.97 - 0.004 * distance**2) + run["seed"] % 7 / 1000
        rising = [accuracy * (1 - math.exp(-epoch / 3)) for epoch in epochs]
        curve = {"epoch": epochs, "test_accuracy": rising}
        record = record_of(run, metrics={"test_accuracy": accuracy}, curve=curve)
        lines.append(record.to_json())
    (workdir / "records").mkdir(exist_ok=True)
    (workdir / "records" / "all.jsonl").write_bytes(b"".join(lines))


def test_ten_thousand_runs_are_fluid(tmp_path, opened):
    runs = sweeps.grid(
        batch_size=sweeps.powers_of_two(2, 1024),
        learning_rate=sweeps.powers_of_two(2**-12, 1),
        noise=[0, 1],
        seed=range(40),
    )
    runs = list(runs)[:10_000]
    assert len(runs) == 10_000
    simulated(tmp_path, runs)
    protocol = sweeps.Protocol(
        best=30, of=30, max_extensions=0, series=lambda run: f"noise {run['noise']}"
    )
    path = reports.write_report(sweeps.Sweep(lambda: None, runs, protocol, tmp_path))
    assert path.stat().st_size < 5e6
    start = time.monotonic()
    page = opened(path)
    assert time.monotonic() - start < 20
    x, y = place(page, "runs", 0)
    page.evaluate(
        "() => { let last = performance.now(); window.frames = []; (function next() {"
        "const now = performance.now(); frames.push(now - last); last = now;"
        "requestAnimationFrame(next); })(); }"
    )
    for step in range(50):
        page.mouse.move(x + 5 * step, y + step % 5)
    frames = sorted(page.evaluate("frames"))
    assert frames[len(frames) // 2] < 50  # ms: 20 frames a second, also on two busy cores
    assert sum(len(columns(page, "runs", "x", source)) for source in (0, 1)) == 10_000
