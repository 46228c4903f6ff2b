"use strict";
// Draws the charts of the page, shows the chosen part of a chart, and hides and shows models.
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const hidden = new Set();
  const config = {
    responsive: true,
    displaylogo: false,
    // No button may offer to send a chart to somebody's server.
    showSendToCloud: false,
    plotlyServerURL: "",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };
  const visible = (trace) => ({ ...trace, visible: !hidden.has(trace.meta) });

  const options = (chart) => ({ ...config, scrollZoom: chart.layout.dragmode === "pan" });

  // The wheel alone scrolls the page, also over a chart that can be zoomed.
  const leaveWheel = (event) => {
    if (!event.ctrlKey) event.stopPropagation();
  };

  const draw = (chart) =>
    Plotly.react(
      chart.id,
      chart.sets[chart.shown].map(visible),
      structuredClone(chart.layout),
      options(chart),
    );

  const show = (chart, box, number) => {
    const view = chart.views[number];
    chart.shown = view.set;
    chart.layout.xaxis.range = [...view.range];
    box.querySelector(".note").textContent = view.note;
    for (const button of box.querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(Number(button.dataset.view) === number));
    draw(chart);
  };

  for (const chart of charts) {
    chart.shown = 0;
    // A drag or a zoom must not survive the choice of another part.
    chart.layout.uirevision = null;
    document.getElementById(chart.id).addEventListener("wheel", leaveWheel, { capture: true });
    const box = document.querySelector(`.views[data-chart="${chart.id}"]`);
    for (const button of box?.querySelectorAll("button") ?? [])
      button.addEventListener("click", () => show(chart, box, Number(button.dataset.view)));
  }

  for (const button of document.querySelectorAll(".legend button"))
    button.addEventListener("click", () => {
      const model = button.dataset.model;
      if (!hidden.delete(model)) hidden.add(model);
      button.setAttribute("aria-pressed", String(!hidden.has(model)));
      for (const chart of charts) draw(chart);
    });

  Promise.all(charts.map(draw)).then(() => {
    document.documentElement.dataset.charts = String(charts.length);
  });
})();
