// Charts as elements: the server writes their numbers into attributes, uPlot draws them into a shadow tree, which
// a morph of the page leaves alone.
"use strict";

class Chart extends HTMLElement {
  connectedCallback() {
    if (!this.shadowRoot) {
      const style = document.createElement("link");
      style.rel = "stylesheet";
      style.href = "/dashboard/static/vendor/uPlot.min.css";
      this.room = document.createElement("div");
      this.attachShadow({mode: "open"}).append(style, this.room);
    }
    this.redraw = () => this.draw();
    this.resize = new ResizeObserver(this.redraw);
    this.resize.observe(this);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", this.redraw);
    document.addEventListener("theme", this.redraw);
  }

  disconnectedCallback() {
    this.resize.disconnect();
    this.scheme.removeEventListener("change", this.redraw);
    document.removeEventListener("theme", this.redraw);
    this.plot?.destroy();
    this.plot = null;
  }

  attributeChangedCallback() {
    if (!this.plot || this.pending) return;
    this.pending = true; // several attributes change together
    queueMicrotask(() => {
      this.pending = false;
      this.plot?.setData(this.data());
    });
  }

  draw() {
    if (!this.clientWidth) return;
    this.plot?.destroy();
    const size = {width: this.clientWidth, height: this.clientHeight};
    this.plot = new uPlot({...size, ...this.options()}, this.data(), this.room);
  }

  colour(name) {
    return getComputedStyle(this).getPropertyValue(`--${name}`);
  }

  numbers(name) {
    return (this.getAttribute(name) || "").split(",").map(value => (value === "" ? null : Number(value)));
  }
}

// How long first tokens took: a line without axes.
class FirstTokenLine extends Chart {
  static observedAttributes = ["values"];

  data() {
    const values = this.numbers("values");
    return [values.map((_, index) => index), values];
  }

  options() {
    return {
      padding: [3, 3, 3, 3],
      legend: {show: false},
      cursor: {show: false},
      axes: [{show: false}, {show: false}],
      scales: {x: {time: false}, y: {range: (_, __, most) => [0, most || 1]}},
      series: [{}, {
        stroke: this.colour("accent"), width: 1.5, spanGaps: true,
        fill: this.colour("accent-faint"), points: {show: false},
      }],
    };
  }
}

const timeOfDay = seconds => new Date(seconds * 1000).toISOString().slice(11, 16);

// Requests a second by how they ended; dashes tell the lines apart without colours.
class TrafficChart extends Chart {
  static observedAttributes = ["until", "answered", "failed", "refused"];

  data() {
    const seconds = Number(this.getAttribute("seconds"));
    const until = Number(this.getAttribute("until"));
    const lines = ["answered", "failed", "refused"].map(name =>
      this.numbers(name).slice(0, -1).map(count => count / seconds)); // the newest slot isn't over yet
    return [lines[0].map((_, index) => until - (lines[0].length - index) * seconds), ...lines];
  }

  options() {
    const axis = {
      stroke: this.colour("muted"), font: "12px system-ui", ticks: {show: false},
      grid: {stroke: this.colour("line"), width: 1},
    };
    const line = (name, dash) => ({stroke: this.colour(name), width: 2, dash, points: {show: false}});
    return {
      padding: [8, 8, 0, 0],
      legend: {show: false},
      cursor: {show: false},
      axes: [
        {...axis, grid: {show: false}, space: 90, size: 28, values: (_, times) => times.map(timeOfDay)},
        {...axis, size: 42},
      ],
      scales: {y: {range: (_, __, most) => [0, Math.max(1, most * 1.1)]}},
      series: [{}, {...line("answered"), fill: this.colour("accent-faint")}, line("failed", [6, 3]), line("refused", [2, 3])],
    };
  }
}

customElements.define("first-token-line", FirstTokenLine);
customElements.define("traffic-chart", TrafficChart);
