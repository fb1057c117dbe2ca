"use strict";
// The map, and a box for the point under the mouse. Text is set by textContent only, so no path becomes markup.
const { figure, points } = JSON.parse(document.getElementById("data").textContent);
const [map, box, picture, path, more] =
  ["map", "box", "picture", "path", "more"].map((id) => document.getElementById(id));
const ink = getComputedStyle(document.body).color;
const rings = figure.data.length - 1; // the last trace: rings around the points of one group
const members = new Map(); // group -> positions of its points
for (const trace of figure.data.slice(0, rings)) {
  trace.customdata.forEach((point, i) => {
    const group = points.group[point];
    if (!members.has(group)) members.set(group, { x: [], y: [] });
    members.get(group).x.push(trace.x[i]);
    members.get(group).y.push(trace.y[i]);
  });
}
let held = false;

function show({ event, points: [{ x, y, customdata: point }] }) {
  const data = points.picture[point];
  const group = points.group[point];
  picture.hidden = !data;
  picture.src = data ? "data:image/jpeg;base64," + data : "";
  path.textContent = points.path[point];
  more.textContent = [points.groups[group] ?? points.none, points.note[point]].filter(Boolean).join(", ");
  box.hidden = false;
  const right = event.clientX + 16 + box.offsetWidth < innerWidth;
  box.style.left = Math.max(4, right ? event.clientX + 16 : event.clientX - 16 - box.offsetWidth) + "px";
  box.style.top = Math.max(4, Math.min(event.clientY - 20, innerHeight - box.offsetHeight - 8)) + "px";
  ring(group >= 0 ? members.get(group) : { x: [x], y: [y] });
}

function hide() {
  held = false;
  box.hidden = true;
  box.classList.remove("held");
  ring({ x: [], y: [] });
}

function ring({ x, y }) {
  Plotly.restyle(map, { x: [x], y: [y] }, [rings]);
}

figure.layout.font = { color: ink, family: getComputedStyle(document.body).fontFamily };
figure.data[rings].marker.color = ink;
if (innerWidth < 700) Object.assign(figure.layout.legend, { orientation: "h", y: 0 });
Plotly.newPlot(map, figure.data, figure.layout, figure.config).then(() => {
  map.on("plotly_hover", (event) => held || show(event));
  map.on("plotly_unhover", () => held || hide());
  map.on("plotly_click", (event) => {
    show(event);
    held = true;
    box.classList.add("held");
  });
  addEventListener("keydown", ({ key }) => key === "Escape" && hide());
  addEventListener("pointerdown", ({ target }) => held && !box.contains(target) && hide());
});
