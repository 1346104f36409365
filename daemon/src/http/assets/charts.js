// The charts of the dashboard, drawn by Chart.js in the colours of the style sheet.
"use strict";
const Charts = (() => {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const series = () => ["--c1", "--c2", "--c3", "--c4"].map(colour);
  const { dated, decimal, tick } = Format;
  const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });

  function common() {
    const muted = colour("--muted");
    return {
      responsive: true, maintainAspectRatio: false, animation: false, normalized: true,
      font: { family: getComputedStyle(document.body).fontFamily },
      interaction: { mode: "index", intersect: false },
      plugins: {
        legend: { display: false, labels: { color: muted, boxWidth: 10, boxHeight: 10, usePointStyle: true } },
        tooltip: {
          backgroundColor: colour("--ink"), titleColor: colour("--ground"), bodyColor: colour("--ground"),
          padding: 9, cornerRadius: 7, displayColors: false,
        },
      },
    };
  }
  const axis = (more) => ({
    grid: { color: colour("--line"), drawTicks: false }, border: { display: false },
    ticks: { color: colour("--muted"), padding: 8, font: { size: 11.5 } }, ...more,
  });
  const bare = { grid: { display: false }, border: { display: false } };

  function line(canvas) {
    const options = common();
    options.scales = {
      x: axis({ ...bare, type: "linear", ticks: { color: colour("--muted"), maxTicksLimit: 5, maxRotation: 0, font: { size: 11.5 }, callback(ms) { return tick(ms, this.max - this.min); } } }),
      y: axis({ beginAtZero: true, ticks: { color: colour("--muted"), maxTicksLimit: 5, padding: 8, font: { size: 11.5 }, callback: (v) => short.format(v) } }),
    };
    options.plugins.tooltip.callbacks = { title: (items) => dated(items[0].parsed.x) };
    return new Chart(canvas, { type: "line", data: { datasets: [] }, options });
  }

  // sets: [{ label, points: [{ x, y, text }] }]; `text` is the exact value, where y is not
  function setLine(chart, sets, unit) {
    const colours = series();
    chart.data.datasets = sets.map((set, at) => ({
      label: set.label, data: set.points, borderColor: colours[at % 4], borderWidth: 2, pointRadius: 0, pointHitRadius: 12,
      cubicInterpolationMode: "monotone", fill: sets.length === 1, backgroundColor: colours[at % 4] + "1c",
    }));
    const times = sets[0]?.points ?? [];
    chart.options.scales.x.min = times[0]?.x;
    chart.options.scales.x.max = times[times.length - 1]?.x;
    chart.options.plugins.legend.display = sets.length > 1;
    chart.options.plugins.tooltip.callbacks.label = (item) => `${item.dataset.label}: ${item.raw.text ?? decimal.format(item.parsed.y)}${unit ? " " + unit : ""}`;
    chart.update("none");
  }

  // Writes the values at the ends of their bars, so that they are visible without hovering.
  const values = {
    id: "values",
    afterDatasetsDraw(chart, _, options) {
      const context = chart.ctx;
      context.save();
      context.font = `500 12px ${getComputedStyle(document.body).fontFamily}`;
      context.textBaseline = "middle";
      chart.getDatasetMeta(0).data.forEach((bar, at) => {
        const text = options.texts?.[at];
        if (!text) return;
        const wide = context.measureText(text).width + 12;
        const end = Math.max(bar.x, bar.base);
        const inside = end + wide > chart.chartArea.right;
        context.fillStyle = inside ? colour("--card") : colour("--ink");
        context.textAlign = inside ? "right" : "left";
        context.fillText(text, inside ? end - 7 : end + 7, bar.y);
      });
      context.restore();
    },
  };

  function bars(canvas, funnel) {
    const options = common();
    options.indexAxis = "y";
    options.layout = { padding: { right: 4 } };
    options.scales = {
      x: { ...bare, display: false, beginAtZero: true },
      y: axis({ ...bare, ticks: { color: colour("--ink"), font: { size: 12.5 }, autoSkip: false } }),
    };
    options.plugins.values = { texts: [] };
    if (funnel) options.plugins.tooltip.enabled = false;
    return new Chart(canvas, { type: "bar", data: { labels: [], datasets: [] }, options, plugins: [values] });
  }

  function setBars(chart, labels, numbers, texts) {
    chart.data.labels = labels;
    chart.data.datasets = [{ data: numbers, backgroundColor: colour("--c1"), borderRadius: 4, maxBarThickness: 24, categoryPercentage: .84 }];
    chart.options.plugins.values.texts = texts;
    chart.options.plugins.tooltip.callbacks = { label: (item) => texts[item.dataIndex] };
    chart.options.scales.x.max = Math.max(...numbers, 1) * 1.02;
    chart.update("none");
  }

  // Each step is as wide as its share of the first, and centred: a bar from -share to +share.
  function setFunnel(chart, labels, numbers, texts) {
    const first = Math.max(numbers[0] || 0, 1);
    chart.data.labels = labels;
    chart.data.datasets = [{ data: numbers.map((n) => [-n / first, n / first]), backgroundColor: series(), borderRadius: 5, barPercentage: .92, categoryPercentage: .92, minBarLength: 4 }];
    chart.options.plugins.values.texts = texts;
    chart.options.scales.x.beginAtZero = false;
    chart.options.scales.x.min = -1;
    chart.options.scales.x.max = 1;
    chart.update("none");
  }

  return {
    line, bars: (canvas) => bars(canvas, false), funnel: (canvas) => bars(canvas, true),
    setLine, setBars, setFunnel,
    destroy(chart) { chart.destroy(); },
  };
})();
