// Makes a report's page explorable: plots in place of the drawings, series and axes to switch, runs
// to find. Bokeh draws; this file connects its figures with the page and with the list of runs.
// Without it, or if it fails, the page shows the drawings.
"use strict";

(() => {
  const MOST_LISTED = 50;  // runs in the panel, and curves in its plot
  // On a dark page these two colors of series are lighter, as in the drawings.
  const LIGHTER = {"#0072b2": "#4aa8e0", "#009e73": "#2fc79a"};
  const PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"];
  const DARKER = Object.fromEntries(Object.entries(LIGHTER).map(([a, b]) => [b, a]));
  const STEPS = {ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]};

  const read = (element) => JSON.parse(element.textContent);
  const find = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const runs = read(find("#runs"));
  const figures = [];  // {element, model, section} of each plot
  let panel;  // the panel's own entry of `figures`
  let opener;  // what had the focus before the panel was opened

  function make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  // Runs

  const fields = Object.entries(runs.fields);
  const varying = fields.filter(([, field]) => new Set(field.values).size > 1);
  const shown = (value) => String(typeof value === "number" ? +value.toPrecision(6) : value);

  function describe(run) {
    return varying.filter(([, field]) => field.values[run] !== null)
      .map(([, field]) => `${field.name} ${shown(field.values[run])}`).join(", ");
  }

  function byFields(one, other) {
    for (const [, {values}] of varying)
      if (values[one] !== values[other]) return values[one] < values[other] ? -1 : 1;
    return 0;
  }

  // Returns the number that a text writes, as the command line does: 64, 1e-3, 2^-3 or 1/3.
  function toNumber(text) {
    const [, base, sign, other] = text.match(/^(.+?)([\^/])(.+)$/) || [];
    if (!sign) return text.trim() === "" ? NaN : Number(text);
    return sign === "^" ? Number(base) ** Number(other) : Number(base) / Number(other);
  }

  function isEqual(value, text) {
    if (typeof value !== "number") return String(value).toLowerCase() === text.toLowerCase();
    const number = toNumber(text);
    return Math.abs(value - number) <= 1e-6 * Math.abs(number);
  }

  // Returns the runs that have every word of a text: NAME=VALUE, a value of any field, or the
  // beginning of an id.
  function search(text) {
    text = text.replace(/\s*=\s*/g, "=");
    // Names as the page writes them hold spaces: the longest one first, which may hold others.
    for (const [key, {name}] of [...fields].sort(([, a], [, b]) => b.name.length - a.name.length))
      text = text.replaceAll(`${name}=`, `${key}=`);
    const words = text.split(/[\s,;]+/).filter(Boolean).map((word) => word.split(/=(.*)/s));
    const named = (name) => runs.fields[name] ? [runs.fields[name]]
      : fields.filter(([key]) => key.startsWith(name.toLowerCase())).map(([, field]) => field);
    const has = (run, [name, value]) => value !== undefined
      ? named(name).some((field) => isEqual(field.values[run], value))
      : fields.some(([, field]) => isEqual(field.values[run], name))
        || (name.length > 5 && runs.ids[run].startsWith(name));
    if (!words.length) return [];
    return [...runs.ids.keys()].filter((run) => words.every((word) => has(run, word)));
  }

  const quoted = (text) =>
    /^[\w.,/=:@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`;

  // Returns the command that trains a run into a directory of its own. A sweep of a program has
  // none: then the hyperparameters as a Python dict.
  function commandOf(run) {
    const python = (value) =>
      typeof value === "boolean" ? (value ? "True" : "False") : JSON.stringify(value);
    const own = fields.filter(([, field]) => field.values[run] !== null);
    if (!runs.command)
      return `{${own.map(([key, field]) => `"${key}": ${python(field.values[run])}`).join(", ")}}`;
    const flags = own.filter(([key]) => runs.command.fields.includes(key)).map(([key, field]) =>
      quoted(`--config.grid.${key}=${typeof field.values[run] === "boolean"
        ? python(field.values[run]) : field.values[run]}`));
    return [runs.command.words, ...flags, `--workdir=sweeps/run_${runs.ids[run]}`].join(" ");
  }

  async function copy(text, button) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // some browsers allow it to pages of a server only
      const area = make("textarea", {value: text});
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    button.textContent = "Copied";
    say(`Copied: ${text}`);
  }

  const say = (text) => { find("#status").textContent = text; };

  // Axes and colors

  const renderers = (model) => model.renderers.filter((each) => each.glyph);
  const pointRenderers = (model) => renderers(model).filter((each) =>
    each.tags.includes("points") && each.visible);

  function canBeLog(model, side) {
    const values = pointRenderers(model).flatMap(({data_source: {data}}) =>
      Array.from(data[side] ?? Array.from(data[`${side}s`]).flatMap((each) => Array.from(each))));
    return values.length > 0 && values.every((value) => typeof value === "number" && !(value <= 0));
  }

  function setScale(model, side, isLog) {
    const [linear, log] = side === "x" ? model.below : model.left;
    linear.visible = !isLog;
    log.visible = isLog;
    for (const grid of model.center)
      if (grid.axis === linear || grid.axis === log) grid.visible = grid.axis.visible;
    model[`${side}_range`].scale_hint = isLog ? "log" : "auto";
    model[`${side}_scale`] = new (isLog ? Bokeh.Models.LogScale : Bokeh.Models.LinearScale)();
    model.reset.emit();  // fits the ranges to the points
  }

  function addScaleButtons({element, model}) {
    if (find(".scales", element)) find(".scales", element).remove();
    const group = make("div", {className: "scales"});
    for (const side of ["x", "y"]) {
      if (!canBeLog(model, side)) continue;
      const isLog = () => (side === "x" ? model.below : model.left)[1].visible;
      const button = make("button", {type: "button", textContent: `log ${side}`});
      button.ariaPressed = isLog();
      button.onclick = () => {
        setScale(model, side, !isLog());
        button.ariaPressed = isLog();
      };
      group.append(button);
    }
    find(".plot", element).before(group);
  }

  // Labels axes. As a plain text, $$ begins no formula.
  function name(axes, text) {
    for (const axis of axes) axis.axis_label = new Bokeh.Models.PlainText({text});
  }

  function color({model}) {
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--ink").trim();
    for (const axis of [...model.below, ...model.left])
      Object.assign(axis, {axis_label_text_color: ink, major_label_text_color: ink});
    const swap = dark.matches ? LIGHTER : DARKER;
    for (const {glyph} of renderers(model))
      for (const property of ["line_color", "fill_color"]) {
        const now = glyph[property]?.value;
        if (swap[now]) glyph[property] = {value: swap[now]};
      }
    for (const legend of model.right)
      Object.assign(legend, {label_text_color: ink, title_text_color: ink});
  }

  function colorLegends() {
    for (const mark of all(".series i"))
      mark.style.color = dark.matches && LIGHTER[mark.dataset.color] || mark.dataset.color;
  }

  // Choosing points

  // Shows runs in the panel below the page, with their curves and commands.
  function show(title, chosen, section) {
    const listed = [...chosen].sort(byFields).slice(0, MOST_LISTED);
    const {metric} = runs.sections[section];
    const more = chosen.length > listed.length ? `, the first ${listed.length} of them` : "";
    find("#panel-title").textContent =
      `${title}: ${chosen.length} ${chosen.length === 1 ? "run" : "runs"}${more}`;
    if (find("#panel").hidden) opener = document.activeElement;
    find("#panel").hidden = false;
    document.body.classList.add("has-panel");
    drawCurves(listed, metric);
    listRuns(listed, metric);
  }

  function drawCurves(listed, metric) {
    const [renderer] = renderers(panel.model);
    const curves = runs.curves[metric];
    const drawn = listed.filter((run) => curves.values[run]);
    find("#curves").hidden = !drawn.length;
    name(panel.model.left, runs.metrics[metric].name);
    renderer.data_source.data = {
      xs: drawn.map((run) => curves.epochs[curves.values[run][0]]),
      // Bokeh breaks a line at NaN, and JSON has none.
      ys: drawn.map((run) => curves.values[run][1].map((value) => value ?? NaN)),
      text: drawn.map(describe),
      color: drawn.map((run) => colorOf(listed.indexOf(run))),
    };
    panel.model.reset.emit();
    addScaleButtons(panel);
  }

  // Returns the color of a curve and of its line in the list: Okabe and Ito's, in turn.
  function colorOf(index) {
    const each = PALETTE[index % PALETTE.length];
    return dark.matches && LIGHTER[each] || each;
  }

  function listRuns(listed, metric) {
    const copied = runs.command ? "command" : "run";
    const names = [...varying.map(([, field]) => field.name), runs.metrics[metric].name, copied];
    const head = make("tr", {}, make("th"),
      ...names.map((textContent) => make("th", {textContent})));
    const lines = listed.map((run, index) => {
      const mark = make("td", {textContent: runs.curves[metric].values[run] ? "━" : ""});
      mark.style.color = colorOf(index);
      const value = runs.metrics[metric].values[run];
      const button = make("button", {type: "button", textContent: "Copy", title: commandOf(run)});
      button.ariaLabel = `Copy ${copied}, ${describe(run)}`;
      button.onclick = () => copy(commandOf(run), button);
      return make("tr", {}, mark,
        ...varying.map(([, field]) => make("td", {textContent: shown(field.values[run] ?? "")})),
        make("td", {textContent: value !== null ? shown(value)
          : runs.diverged[run] ? "diverged" : "-"}),
        make("td", {}, button));
    });
    find("#panel table").replaceChildren(make("thead", {}, head), make("tbody", {}, ...lines));
  }

  function close() {
    if (find("#panel").contains(document.activeElement)) opener?.focus();
    find("#panel").hidden = true;
    document.body.classList.remove("has-panel");
    choose(null, []);
  }

  // Chooses points of one source, and none of the others.
  function choose(source, indices) {
    for (const {model} of figures)
      for (const {data_source: other} of renderers(model))
        if (other !== source) other.selected.indices = [];
    if (source) source.selected.indices = indices;
  }

  // A click and the arrow keys both choose points of a source; what follows is the same.
  function connect({element, model, section}) {
    for (const {data_source: source} of pointRenderers(model)) {
      source.selected.properties.indices.change.connect(() => {
        const {indices} = source.selected;
        if (!indices.length) return;
        choose(source, indices);
        const texts = indices.map((index) => source.data.text[index]);
        const chosen = [...new Set(indices.flatMap((index) => source.data.runs[index]))];
        say(texts[0]);
        if (chosen.length)
          show(texts.length > 1 ? "Chosen points" : texts[0].split("\n")[0], chosen, section);
      });
    }
    find(".plot", element).addEventListener("keydown", (event) => {
      if (!STEPS[event.key]) return;
      event.preventDefault();
      move(model, STEPS[event.key]);
    });
  }

  // Chooses the next point. In a heat map the arrows go to the next cell of their direction, in
  // other plots left and right go through the points one by one, and up and down through series.
  function move(model, [dx, dy]) {
    const sources = pointRenderers(model).map((each) => each.data_source)
      .filter((source) => source.data.text.length);
    if (!sources.length) return;
    const current = Math.max(0, sources.findIndex((source) => source.selected.indices.length));
    const {data, selected} = sources[current];
    const [index] = selected.indices;
    let [source, next] = [sources[current], 0];
    if (index !== undefined && data.mean) {
      const isNext = (i) => data.x[i] === data.x[index] + dx && data.y[i] === data.y[index] + dy;
      next = Array.from(data.x.keys()).find(isNext) ?? index;
    } else if (index !== undefined && dx && data.text.length > 1) {
      next = Math.min(data.text.length - 1, Math.max(0, index + dx));
    } else if (index !== undefined) {
      source = sources[(current + dx - dy + sources.length) % sources.length];
      next = Math.min(index, source.data.text.length - 1);
    }
    choose(source, [next]);
  }

  // Every run

  function fillEveryRun({element, model, section}) {
    const {metric, tuned, series} = runs.sections[section];
    const columns = [...varying, ...Object.entries(runs.metrics)]
      .filter(([, each]) => each.values.some((value) => typeof value === "number"));
    const select = (label, chosen) => {
      const options = columns.map(([key, each]) =>
        make("option", {value: key, textContent: each.name, selected: key === chosen}));
      return make("select", {ariaLabel: label}, ...options);
    };
    const x = select("Horizontal axis", tuned);
    const y = select("Vertical axis", metric);
    const draw = () => {
      choose(null, []);
      const [across, up] = [x, y].map(({value}) => runs.fields[value] || runs.metrics[value]);
      name(model.below, across.name);
      name(model.left, up.name);
      const isField = Boolean(runs.fields[x.value]);
      const isLog = isField && across.values.every((value) => value > 0);
      for (const renderer of renderers(model)) {
        // Series stand side by side, or the last one would hide the others.
        const step = Math.min(1.15, 1.5 ** (1 / model.renderers.length));
        const shift = isLog ? step ** renderer.name : 1;
        const kept = [...runs.ids.keys()].filter((run) => String(series[run]) === renderer.name
          && [across, up].every(({values}) => typeof values[run] === "number"));
        renderer.data_source.data = {
          x: kept.map((run) => across.values[run] * shift),
          y: kept.map((run) => up.values[run]),
          text: kept.map((run) => `${describe(run)}\n${up.name}: ${shown(up.values[run])}`),
          runs: kept.map((run) => [run]),
        };
      }
      setScale(model, "x", isLog);
      setScale(model, "y", false);
      addScaleButtons({element, model});
    };
    x.onchange = y.onchange = draw;
    find(".plot", element).before(make("div", {className: "choices"}, y, " against ", x));
    draw();
  }

  // The page

  function connectSeries(fieldset) {
    const section = Number(fieldset.dataset.section);
    fieldset.hidden = false;
    fieldset.onchange = ({target}) => {
      for (const figure of figures.filter((each) => each.section === section)) {
        if (figure.element.dataset.series === target.value)
          figure.element.hidden = !target.checked;
        const {renderers: drawn, center} = figure.model;
        for (const each of [...drawn, ...center])
          if (each.name === target.value) each.visible = target.checked;
      }
    };
  }

  function connectSearch() {
    const form = find("#find");
    const input = find("input", form);
    form.hidden = false;
    form.onsubmit = (event) => {
      event.preventDefault();
      const found = search(input.value);
      find("output", form).textContent = found.length ? "" :
        "No run has all of these numbers. Example: batch size=64 2^-3 seed=0";
      if (found.length) {
        show(input.value, found, 0);
        find("#panel-title").focus();
      }
    };
  }

  async function embed(element, section) {
    const plot = find(".plot", element);
    plot.id = `explored-${figures.length}`;
    plot.hidden = false;
    await Bokeh.embed.embed_item(read(find("script", element)), plot.id);
    const figure = {element, section, model: Bokeh.documents.at(-1).roots()[0]};
    figures.push(figure);
    color(figure);
    addScaleButtons(figure);
    return figure;
  }

  async function start() {
    document.documentElement.classList.add("explored");
    for (const element of all("figure.explorable")) {
      const figure = await embed(element, Number(element.dataset.section));
      if (element.dataset.name === "runs") fillEveryRun(figure);
      connect(figure);
    }
    find("#panel").hidden = false;  // a plot is measured when it is made
    panel = await embed(find("#panel"), 0);
    find("#panel").hidden = true;
    find("#panel .close").onclick = close;
    addEventListener("keydown", ({key}) => { if (key === "Escape") close(); });
    dark.addEventListener("change", () => { figures.forEach(color); colorLegends(); });
    colorLegends();
    all("fieldset.series").forEach(connectSeries);
    connectSearch();
    document.documentElement.classList.add("ready");
  }

  start().catch((error) => {  // an old browser, for example
    document.documentElement.classList.remove("explored");
    for (const plot of all(".plot")) plot.hidden = true;
    throw error;
  });
})();
