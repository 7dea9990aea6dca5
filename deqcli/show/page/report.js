"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const short = (value) => String(Number(value.toPrecision(6)));

  // ---- tables: a filter, columns to sort by, all digits ----

  const make = (tag, attributes = {}, text = "") => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text) element.textContent = text;
    return element;
  };

  const comparison = (column, sign) => (one, other) => {
    const [a, b] = [one.cells[column], other.cells[column]];
    const [x, y] = [a.dataset.v, b.dataset.v];
    if (x !== undefined && y !== undefined) return sign * (Number(x) - Number(y));
    if (x !== undefined || y !== undefined) return x !== undefined ? -1 : 1; // what is missing comes last
    return sign * a.textContent.localeCompare(b.textContent, "en", { numeric: true });
  };

  const sorting = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = make("button", { type: "button" }, head.textContent);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const each of heads) each.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        body.append(...[...body.rows].sort(comparison(column, down ? -1 : 1)));
      });
    });
  };

  const filtering = (table, name, field, count) => {
    const rows = [...table.tBodies[0].rows];
    const texts = new Map();
    const text = (row) => {
      if (!texts.has(row)) texts.set(row, [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase());
      return texts.get(row);
    };
    const apply = () => {
      const wanted = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        row.hidden = !wanted.every((word) => text(row).includes(word));
        shown += !row.hidden;
      }
      count.textContent = `${shown} of ${rows.length} rows`;
    };
    field.addEventListener("input", apply);
    apply();
  };

  const spelling = (table, box) => {
    const brief = new Map();
    box.addEventListener("change", () => {
      for (const cell of table.tBodies[0].querySelectorAll("td[data-v]")) {
        if (!brief.has(cell)) brief.set(cell, cell.textContent);
        cell.textContent = box.checked ? cell.dataset.v : brief.get(cell);
      }
    });
  };

  for (const box of document.querySelectorAll(".table")) {
    const table = box.querySelector("table");
    if (table.tBodies[0].rows.length < 2 || box.dataset.table === "provenance") continue;
    const name = `t-${box.dataset.table}`;
    const tools = make("div", { class: "tools" });
    const wrap = make("label", {}, "Filter ");
    const field = make("input", { type: "search", id: name, autocomplete: "off", spellcheck: "false" });
    wrap.append(field);
    const count = make("output", { for: name, "aria-live": "polite" });
    const digits = make("label");
    const all = make("input", { type: "checkbox" });
    digits.append(all, "all digits");
    tools.append(wrap, digits, count);
    box.prepend(tools);
    sorting(table);
    filtering(table, name, field, count);
    spelling(table, all);
  }

  // ---- curves ----

  const data = read("data");
  const kinds = { u4: Uint32Array, f4: Float32Array, f8: Float64Array };
  const decoded = new Map();
  const array = (index) => {
    if (!decoded.has(index)) {
      const text = data.arrays[index];
      const bytes = atob(text.slice(3));
      const buffer = new Uint8Array(bytes.length);
      for (let i = 0; i < bytes.length; i++) buffer[i] = bytes.charCodeAt(i);
      decoded.set(index, Float64Array.from(new kinds[text.slice(0, 2)](buffer.buffer)));
    }
    return decoded.get(index);
  };
  const runs = data.runs.map(([id, scale, values]) => ({ id, scale, values }));
  const varied = data.keys.map((key, index) => ({ ...key, index })).filter((key) => key.values.length > 1);
  const label = (run) => varied.map((key) => `${key.name} ${key.values[run.values[key.index]]}`).join(", ") || run.id;

  const chosen = { hidden: data.keys.map(() => new Set()), timed: false, logX: false, by: varied.length ? varied[0].index : 0 };
  const visible = (run) => run.values.every((value, key) => !chosen.hidden[key].has(value));
  const shade = (value) => {
    const shades = data.palettes[printing || !dark.matches ? "light" : "dark"];
    const most = data.keys[chosen.by].values.length - 1;
    return shades[most ? Math.round((value * (shades.length - 1)) / most) : Math.round(shades.length / 3)];
  };
  let printing = false;

  // ---- a figure ----

  const models = Bokeh.Models;
  const along = { true: Math.log10, false: (value) => value };
  const back = { true: (value) => 10 ** value, false: (value) => value };
  // So many curves are drawn as hairlines: a browser fills wide or dashed ones that cross each other slowly
  const MANY = 60;
  const FAINT = [0.9, 0.5, 0.5, 0.35, 0.35]; // their opacity by kind
  const SHEET = 660; // CSS pixels between the margins
  const NEAR = 40; // pixels from the pointer within which a curve is meant

  // 1, 2 and 5, 1 to 9, or even steps between two powers of ten: whichever gives enough ticks first
  const fewTicks = (low, high) => {
    const between = (value) => value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9);
    for (const mantissas of [[1, 2, 5], [1, 2, 3, 4, 5, 6, 7, 8, 9]]) {
      const ticks = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
        ticks.push(...mantissas.map((mantissa) => Number(`${mantissa}e${power}`)).filter(between));
      }
      if (ticks.length >= 4) return ticks;
    }
    const rough = (high - low) / 5;
    const size = 10 ** Math.floor(Math.log10(rough));
    const step = size * [1, 2, 5, 10].find((each) => each * size >= rough);
    const first = Math.ceil(low / step);
    return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, index) => (first + index) * step);
  };

  class Figure {
    constructor(panel, box, view) {
      this.panel = panel;
      this.box = box;
      this.view = view;
      this.plot = view.model;
      this.get = (name) => this.plot.document.get_model_by_name(name);
      this.off = new Set();
      this.log = { x: false, y: panel.log };
      this.ticks = {};
      this.zoomed = false;
      this.tip = box.querySelector(".tip");
      this.dot = make("div", { class: "dot", hidden: "" });
      box.querySelector(".plot").append(this.dot);
      this.plot.on_event("rangesupdate", () => {
        this.zoomed = true;
        this.leave();
        this.tick("x");
        this.tick("y");
      });
      this.plot.on_event("mousemove", (at) => this.point(at));
      this.plot.on_event("tap", (at) => this.point(at));
      this.plot.on_event("mouseleave", () => this.leave());
      this.scale("y");
      this.drag("zoom");
      this.paint();
      this.refresh();
    }

    get timed() { return chosen.timed && this.panel.timed; }

    drag(way) {
      const finger = matchMedia("(pointer: coarse)").matches && way === "zoom"; // a finger scrolls the page
      this.plot.toolbar.active_drag = finger ? null : this.get(way);
    }

    scale(axis) {
      this.plot.setv({ [`${axis}_scale`]: new models[this.log[axis] ? "LogScale" : "LinearScale"]() });
    }

    // Bokeh's ticks of a logarithmic axis of few decades are those of a linear one
    tick(axis) {
      const { start, end } = this.plot[`${axis}_range`];
      const kind = !this.log[axis] ? "Basic" : end / start > 300 ? "Log" : "Fixed";
      const model = this.get(`${axis}_axis`);
      if (this.ticks[axis] !== kind) {
        this.ticks[axis] = kind;
        const ticker = new models[`${kind}Ticker`]();
        const formatter = new models[kind === "Log" ? "LogTickFormatter" : "BasicTickFormatter"]();
        model.setv({ ticker, formatter, major_label_overrides: new Map() });
        this.get(`${axis}_grid`).ticker = ticker;
      }
      if (kind === "Fixed") {
        const ticks = fewTicks(start, end);
        model.major_label_overrides = new Map(ticks.map((tick) => [tick, short(tick)]));
        model.ticker.ticks = ticks;
      }
    }

    paint() {
      const [ink, soft, grid] = ["ink", "soft", "grid"].map((name) => (printing ? LIGHT[name] : colour(name)));
      for (const axis of ["x", "y"]) {
        this.get(`${axis}_axis`).setv({
          axis_line_color: soft, major_tick_line_color: soft, minor_tick_line_color: null,
          major_label_text_color: ink, axis_label_text_color: ink,
        });
        this.get(`${axis}_grid`).grid_line_color = grid;
      }
      const reference = this.get("reference");
      if (reference) reference.line_color = soft;
    }

    refresh() {
      this.curves = [];
      const parts = this.panel.kinds.map(() => ({ xs: [], ys: [], colour: [] }));
      for (const [index, kind, x, y] of this.panel.curves) {
        const run = runs[index];
        if (this.off.has(kind) || !visible(run) || (this.timed && run.scale === null)) continue;
        const xs = this.timed ? array(x).map((step) => step * run.scale) : array(x);
        const curve = { run, kind, xs, ys: array(y), colour: shade(run.values[chosen.by]) };
        this.curves.push(curve);
      }
      const [low, high] = this.extent("x");
      for (const curve of this.curves) {
        const [xs, ys] = this.drawable(curve, high - low || 1);
        parts[curve.kind].xs.push(xs);
        parts[curve.kind].ys.push(ys);
        parts[curve.kind].colour.push(curve.colour);
      }
      this.style();
      parts.forEach((part, kind) => { this.get(`source_${kind}`).data = part; });
      this.get("x_axis").axis_label = this.timed ? data.time : this.panel.x;
      this.leave();
      if (!this.zoomed) this.fit();
    }

    // a curve of which one point can be seen is a short dash there: a line without length would be nothing
    drawable({ xs, ys }, span) {
      const seen = [...xs.keys()].filter((i) => !this.log.x || xs[i] > 0);
      if (seen.length !== 1) return [xs, ys];
      const [at, y] = [along[this.log.x](xs[seen[0]]), ys[seen[0]]];
      const of = back[this.log.x];
      return [[of(at - 0.015 * span), of(at + 0.015 * span)], [y, y]];
    }

    style() {
      const many = this.curves.length > MANY;
      if (this.many === many) return;
      this.many = many;
      this.panel.lines.forEach(([width, dashes], kind) => {
        const [line_width, line_dash, line_alpha] = many ? [1, [], FAINT[kind]] : [width, dashes, 1];
        this.get(`curves_${kind}`).glyph.setv({ line_width, line_dash, line_alpha });
        const line = this.box.querySelector(`[value="${kind}"] + .line line`);
        if (!line) return;
        line.setAttribute("stroke-width", line_width);
        line.setAttribute("stroke-dasharray", line_dash.join(" "));
        line.setAttribute("stroke-opacity", line_alpha);
      });
    }

    recolour() {
      this.paint();
      const parts = this.panel.kinds.map(() => []);
      for (const curve of this.curves) parts[curve.kind].push((curve.colour = shade(curve.run.values[chosen.by])));
      parts.forEach((part, kind) => {
        const source = this.get(`source_${kind}`);
        source.data = { ...source.data, colour: part };
      });
    }

    extent(axis) {
      let [low, high] = [Infinity, -Infinity];
      for (const curve of this.curves) {
        for (const value of curve[`${axis}s`]) {
          if (this.log[axis] && !(value > 0)) continue;
          if (value < low) low = value;
          if (value > high) high = value;
        }
      }
      return low <= high ? [along[this.log[axis]](low), along[this.log[axis]](high)] : [0, 1];
    }

    fit() {
      for (const axis of ["x", "y"]) {
        let [low, high] = this.extent(axis);
        if (axis === "y") [low, high] = this.withReference(low, high);
        const least = this.log[axis] ? 0.1 : Math.max(Math.abs(high) * 1e-3, Number.MIN_VALUE * 1e6);
        const room = axis === "y" ? Math.max((high - low) * 0.05, (least - (high - low)) / 2) : high > low ? 0 : 0.5;
        this.range(axis, low - room, high + room);
      }
      this.zoomed = false;
    }

    withReference(low, high) {
      const { reference } = this.panel;
      if (reference === null || this.log.y) return [low, high];
      const span = high - low;
      const near = reference >= low - 3 * span && reference <= high + 3 * span;
      return near ? [Math.min(low, reference), Math.max(high, reference)] : [low, high];
    }

    range(axis, low, high) {
      const of = back[this.log[axis]];
      this.plot[`${axis}_range`].setv({ start: of(low), end: of(high) });
      this.tick(axis);
    }

    ends(axis) {
      const { start, end } = this.plot[`${axis}_range`];
      const of = along[this.log[axis]];
      return [of(start), of(end)];
    }

    zoom(factor, about = [0.5, 0.5]) {
      ["x", "y"].forEach((axis, index) => {
        const [low, high] = this.ends(axis);
        const middle = low + (high - low) * about[index];
        this.range(axis, middle - (middle - low) * factor, middle + (high - middle) * factor);
      });
      this.zoomed = true;
      this.leave();
    }

    move(axis, part) {
      const [low, high] = this.ends(axis);
      this.range(axis, low + part * (high - low), high + part * (high - low));
      this.zoomed = true;
      this.leave();
    }

    // where a value is, in pixels from the left or the bottom of the frame
    pixel(axis, value) {
      const [low, high] = this.ends(axis);
      const length = axis === "x" ? this.plot.inner_width : this.plot.inner_height;
      return ((along[this.log[axis]](value) - low) / (high - low)) * length;
    }

    nearest(at) {
      const [px, py] = [this.pixel("x", at.x), this.pixel("y", at.y)];
      let best = null;
      for (const curve of this.curves) {
        const { xs, ys } = curve;
        let [low, high] = [0, xs.length - 1];
        while (low < high) {
          const middle = (low + high) >> 1;
          if (xs[middle] < at.x) low = middle + 1; else high = middle;
        }
        for (let i = Math.max(0, low - 3); i <= Math.min(xs.length - 1, low + 2); i++) {
          const [dx, dy] = [this.pixel("x", xs[i]) - px, this.pixel("y", ys[i]) - py];
          const distance = Math.hypot(dx, dy);
          if (distance <= (best ? best.distance : NEAR)) best = { distance, curve, i, dx, dy };
        }
      }
      return best;
    }

    point(at) {
      const found = this.nearest(at);
      if (!found) { this.leave(); return; }
      const { curve, i } = found;
      const [x, y] = [at.sx + found.dx, at.sy - found.dy];
      this.dot.style.cssText = `left:${x}px;top:${y}px;background:${curve.colour}`;
      this.dot.hidden = false;
      const place = this.timed ? `${data.time} ${short(curve.xs[i])}` : `${this.panel.x} ${short(curve.xs[i])}`;
      this.tip.textContent = `${label(curve.run)}\n${this.panel.kinds[curve.kind]}, ${place}\n${this.panel.y} ${short(curve.ys[i])}`;
      this.tip.hidden = false;
      const side = x > this.plot.outer_width / 2 ? `right:${this.plot.outer_width - x + 12}px` : `left:${x + 12}px`;
      this.tip.style.cssText = `${side};top:${Math.max(0, y - 56)}px`;
    }

    leave() {
      this.dot.hidden = true;
      this.tip.hidden = true;
    }

    // the figure as a picture as wide as a sheet of paper, for the printer
    snap() {
      const holder = this.box.querySelector(".plot");
      const host = this.box.querySelector(".host");
      host.style.width = `${SHEET}px`;
      this.view.invalidate_layout();
      const image = this.box.querySelector(".printed") || make("img", { class: "printed", alt: "" });
      image.src = this.view.export("png").canvas.toDataURL("image/png");
      holder.append(image);
      holder.classList.add("snapped");
    }

    unsnap() {
      this.box.querySelector(".plot").classList.remove("snapped");
      this.box.querySelector(".host").style.width = "";
      this.view.invalidate_layout();
    }
  }

  const LIGHT = { ink: "#1b1d21", soft: "#555b64", grid: "#e9e9e5" };

  // ---- controls ----

  const figures = [];
  const controls = document.getElementById("controls");
  const count = document.getElementById("count");
  const every = (action) => figures.forEach(action);

  const tell = () => {
    const shown = runs.filter(visible).length;
    count.textContent = runs.length > 1 ? `${shown} of ${runs.length} runs shown` : "";
  };

  const swatches = () => {
    for (const field of controls.querySelectorAll("[data-key]")) {
      const by = data.keys[chosen.by].name === field.dataset.key;
      field.classList.toggle("by", by); // what is printed of the controls: the legend
      field.querySelectorAll(".swatch").forEach((each, value) => {
        if (by) each.style.background = shade(value); else each.removeAttribute("style");
      });
    }
  };

  const choose = (field) => {
    const key = data.keys.findIndex((each) => each.name === field.dataset.key);
    const boxes = [...field.querySelectorAll("input")];
    for (const box of boxes) box.parentElement.classList.toggle("off", !box.checked);
    chosen.hidden[key] = new Set(boxes.filter((box) => !box.checked).map((box) => Number(box.value)));
  };

  const changed = (event) => {
    const { target } = event;
    const field = target.closest("[data-key]");
    if (field) choose(field);
    if (target.name === "time") chosen.timed = target.value === "time";
    if (target.name === "drag") { every((figure) => figure.drag(target.value)); return; }
    if (target.id === "colour") {
      chosen.by = data.keys.findIndex((key) => key.name === target.value);
      swatches();
      every((figure) => figure.recolour());
      return;
    }
    const refits = target.name === "time" || target.id === "log-x";
    every((figure) => {
      if (target.id === "log-x") { figure.log.x = target.checked; figure.scale("x"); }
      if (refits) figure.zoomed = false;
      figure.refresh();
    });
    tell();
  };

  controls.addEventListener("change", changed);
  controls.addEventListener("click", (event) => {
    const { all } = event.target.dataset;
    if (all === undefined) return;
    const field = event.target.closest("[data-key]");
    for (const box of field.querySelectorAll("input")) box.checked = all !== "";
    choose(field);
    every((figure) => figure.refresh());
    tell();
  });
  for (const form of document.querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());

  const KEYS = {
    ArrowLeft: (figure) => figure.move("x", -0.1), ArrowRight: (figure) => figure.move("x", 0.1),
    ArrowDown: (figure) => figure.move("y", -0.1), ArrowUp: (figure) => figure.move("y", 0.1),
    "+": (figure) => figure.zoom(0.6), "=": (figure) => figure.zoom(0.6), "-": (figure) => figure.zoom(1 / 0.6),
    0: (figure) => figure.fit(), Escape: (figure) => figure.leave(),
  };

  // one stop for the keyboard, with a name: Bokeh has one of its own inside, which has none
  const hush = (node) => {
    for (const each of node.querySelectorAll("*")) {
      if (each.tabIndex === 0) each.tabIndex = -1;
      if (each.shadowRoot) hush(each.shadowRoot);
    }
  };

  const attend = (figure) => {
    const { box } = figure;
    hush(box.querySelector(".host"));
    const own = box.querySelector(".own");
    own.hidden = false;
    own.addEventListener("change", ({ target }) => {
      if (target.classList.contains("log-y")) {
        figure.log.y = target.checked;
        figure.scale("y");
        figure.fit();
        figure.leave();
      } else {
        figure.off[target.checked ? "delete" : "add"](Number(target.value));
        target.parentElement.classList.toggle("off", !target.checked);
        figure.refresh();
      }
    });
    own.addEventListener("click", ({ target }) => {
      if (target.dataset.zoom === "") figure.fit();
      else if (target.dataset.zoom) figure.zoom(Number(target.dataset.zoom));
    });
    const plot = box.querySelector(".plot");
    plot.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
      event.preventDefault();
      KEYS[event.key](figure);
    });
    plot.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      const area = plot.getBoundingClientRect();
      const about = [(event.clientX - area.left) / area.width, 1 - (event.clientY - area.top) / area.height];
      figure.zoom(event.deltaY > 0 ? 1.2 : 1 / 1.2, about);
    }, { passive: false });
  };

  dark.addEventListener("change", () => { swatches(); every((figure) => figure.recolour()); });

  addEventListener("beforeprint", () => {
    printing = true;
    swatches();
    every((figure) => { if (dark.matches) figure.recolour(); figure.snap(); });
  });
  addEventListener("afterprint", () => {
    printing = false;
    swatches();
    every((figure) => {
      figure.unsnap();
      if (dark.matches) figure.recolour();
    });
  });

  // ---- start ----

  const start = async () => {
    document.getElementById("scriptless").hidden = true;
    controls.hidden = data.panels.length === 0;
    document.getElementById("keys").hidden = false;
    swatches();
    tell();
    const items = read("plots");
    for (const [index, panel] of data.panels.entries()) {
      const box = document.querySelector(`[data-panel="${panel.name}"]`);
      const host = box.querySelector(".host");
      host.hidden = true; // so that it is laid out and drawn once, when it has its curves
      const views = await Bokeh.embed.embed_item(items[index]);
      const figure = new Figure(panel, box, views.roots[0]);
      host.hidden = false;
      figures.push(figure);
      attend(figure);
    }
    for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame);
    root.dataset.drawn = String(Math.round(performance.now()));
  };
  window.drawn = start();
})();
