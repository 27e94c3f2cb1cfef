// Draws a contour: a diameter or a point, then corrections. The server draws; nothing is written before it is confirmed.
"use strict";

const STROKE_MM = 4; // distance of the points of a stroke
const drawing = document.getElementById("drawing");
const study = drawing.dataset.study;
const affine = JSON.parse(drawing.dataset.affine);
const status_ = document.getElementById("drawn");
const confirmation = document.getElementById("confirm");
const window_ = document.getElementById("window");
const base = document.getElementById("base");
const zoom = document.getElementById("zoom");
const smooth = document.getElementById("smooth");
const [undo, again] = ["undo", "again"].map((id) => document.getElementById(id));
const AXES = { axial: 0, coronal: 1, sagittal: 2 };

const empty = () => ({
  kind: drawing.dataset.region ? "region" : "",
  points: [],
  include: [],
  exclude: [],
  smooth: 0,
  region: drawing.dataset.region,
});
let draft = empty();
let earlier = [];
let sketch = "";

// Patient coordinates (x, y, z in mm) of a place given as numbers of the axial, coronal and sagittal plane.
const inPatient = (place) => affine.map((row) => row[0] * place[0] + row[1] * place[1] + row[2] * place[2] + row[3]);
const apart = (a, b) => Math.hypot(...a.map((value, k) => value - b[k]));
const tool = () => drawing.querySelector("input[name=tool]:checked").value;

const figures = [...drawing.querySelectorAll("figure")].map((figure) => {
  const plane = figure.dataset.plane;
  const [slider, picture, number, marks] = ["input", "img", "output", "svg"].map((part) => figure.querySelector(part));
  const label = figure.querySelector("label").textContent;
  const address = () => {
    const query = new URLSearchParams({ window: window_.value, region: draft.region || "" });
    if (sketch) query.set("sketch", sketch);
    return `${study}${sketch ? "contour/" : ""}picture/${plane}/${slider.value}.png?${query}`;
  };
  const load = loader(picture, address, () => `${label} ${number.textContent}`);
  const show = () => {
    number.textContent = `${Number(slider.value) + 1} / ${Number(slider.max) + 1}`;
    load();
  };
  // The picture keeps its proportions in a square frame; this is its own part of the frame.
  const frame = () => {
    const { left, top, width, height } = picture.getBoundingClientRect();
    const scale = Math.min(width / picture.naturalWidth, height / picture.naturalHeight);
    const [w, h] = [picture.naturalWidth * scale, picture.naturalHeight * scale];
    return { left: left + (width - w) / 2, top: top + (height - h) / 2, w, h };
  };
  const counts = () => figures.map((one) => Number(one.slider.max) + 1);
  // Enlarges the picture around the point in which the three planes meet.
  const enlarge = () => {
    const { width, height } = picture.parentElement.getBoundingClientRect();
    const scale = Math.min(width / picture.naturalWidth, height / picture.naturalHeight);
    const share = (axis, size, whole) =>
      0.5 + ((Number(figures[axis].slider.value) + 0.5) / counts()[axis] - 0.5) * (size * scale) / whole;
    const [down, across] = [0, 1, 2].filter((axis) => axis !== AXES[plane]);
    picture.style.transformOrigin = `${100 * share(across, picture.naturalWidth, width)}% ${100 * share(down, picture.naturalHeight, height)}%`;
    picture.style.transform = `scale(${zoom.value})`;
  };
  const placeOf = (event) => {
    const { left, top, w, h } = frame();
    const [down, across] = [0, 1, 2].filter((axis) => axis !== AXES[plane]);
    const place = [0, 0, 0];
    place[AXES[plane]] = Number(slider.value);
    place[down] = Math.min(Math.max(((event.clientY - top) / h) * counts()[down] - 0.5, 0), counts()[down] - 1);
    place[across] = Math.min(Math.max(((event.clientX - left) / w) * counts()[across] - 0.5, 0), counts()[across] - 1);
    return place;
  };
  const mark = (from, to) => {
    const box = marks.getBoundingClientRect();
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const at = (event) => [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    const [[x1, y1], [x2, y2]] = [at(from), at(to)];
    for (const [name, value] of Object.entries({ x1, y1, x2, y2 })) line.setAttribute(name, value);
    marks.replaceChildren(line);
  };
  slider.addEventListener("input", () => {
    show();
    enlargeAll();
  });
  turnByWheel(picture, slider, show);

  let began = null;
  let stroke = [];
  picture.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || (tool() === "diameter" && plane !== "axial")) return;
    event.preventDefault();
    picture.setPointerCapture(event.pointerId);
    began = event;
    stroke = [inPatient(placeOf(event))];
  });
  picture.addEventListener("pointermove", (event) => {
    if (!began) return;
    const point = inPatient(placeOf(event));
    if (tool() === "diameter") mark(began, event);
    else if (apart(point, stroke[stroke.length - 1]) >= STROKE_MM) stroke.push(point);
  });
  picture.addEventListener("pointercancel", () => (began = null));
  picture.addEventListener("pointerup", (event) => {
    if (!began) return;
    began = null;
    const last = inPatient(placeOf(event));
    if (tool() === "diameter") change({ ...empty(), kind: "diameter", points: [stroke[0], last], smooth: draft.smooth });
    else if (tool() === "point") change({ ...empty(), kind: "point", points: [last], smooth: draft.smooth });
    else if (tool() === "part") change({ ...draft, points: [last] });
    else correct(tool(), stroke);
  });
  return { slider, show, marks, enlarge };
});

const showAll = () => figures.forEach((figure) => figure.show());
const enlargeAll = () => figures.forEach((figure) => figure.enlarge());

function goTo(keys) {
  figures.forEach(({ slider }, axis) => (slider.value = keys[axis]));
  enlargeAll();
}

function buttons() {
  undo.disabled = again.disabled = earlier.length === 0;
  confirmation.querySelector("button").disabled = !sketch;
  confirmation.elements.sketch.value = sketch;
  for (const name of ["include", "exclude"]) drawing.querySelector(`[value=${name}]`).disabled = !draft.kind;
}

// One request at a time; the latest draft counts.
let wanted = null;
let isAsking = false;
async function ask(isFirst) {
  wanted = draft;
  if (isAsking) return;
  isAsking = true;
  while (wanted) {
    const asked = wanted;
    wanted = null;
    status_.classList.remove("problem");
    status_.textContent = drawing.dataset.drawing;
    const body = new URLSearchParams({ csrf: drawing.dataset.csrf, draft: JSON.stringify(asked) });
    let told = null;
    let fault = drawing.dataset.failed;
    try {
      const response = await fetch(`${study}contour/sketch`, { method: "POST", body, redirect: "error" });
      if (response.ok) told = await response.json();
      else fault = await response.text();
    } catch {
      told = null;
    }
    if (wanted) continue;
    sketch = told ? told.sketch : "";
    if (told) {
      confirmation.elements.images.value = told.images;
      if (isFirst) goTo(told.keys);
      for (const name of ["parts", "others"]) {
        const notice = document.getElementById(name);
        notice.hidden = !told[name];
        notice.textContent = told[name];
      }
    }
    status_.textContent = told ? told.volume : fault;
    status_.classList.toggle("problem", !told);
    figures.forEach(({ marks }) => marks.replaceChildren());
    buttons();
    showAll();
  }
  isAsking = false;
}

function change(next) {
  earlier.push(draft);
  const isFirst = next.points !== draft.points;
  draft = next;
  smooth.value = draft.smooth;
  ask(isFirst);
  if (draft.kind && isFirst && draft.kind !== "region") drawing.querySelector("[value=include]").disabled = false;
}

// The last correction of a place counts: earlier ones to the contrary are taken back there.
function correct(kind, stroke) {
  const contrary = kind === "include" ? "exclude" : "include";
  const kept = draft[contrary].filter((old) => stroke.every((point) => apart(point, old) > STROKE_MM));
  change({ ...draft, [kind]: [...draft[kind], ...stroke], [contrary]: kept });
}

function back(to) {
  draft = to;
  smooth.value = draft.smooth;
  if (draft.kind) ask(false);
  else {
    sketch = "";
    status_.textContent = "";
    buttons();
    showAll();
  }
}

undo.addEventListener("click", () => back(earlier.pop()));
again.addEventListener("click", () => {
  earlier = [];
  back(empty());
});
smooth.addEventListener("change", () => draft.kind && change({ ...draft, smooth: Number(smooth.value) }));
window_.addEventListener("change", showAll);
zoom.addEventListener("change", enlargeAll);
base.addEventListener("change", () => {
  location.href = `${study}contour?${new URLSearchParams({ region: base.value })}`;
});
document.getElementById("typed")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const read = (id) => document.getElementById(id).value.split(/[\s,;]+/).filter(Boolean).map(Number);
  const points = ["first", "second"].map(read).filter((point) => point.length);
  change({ ...empty(), kind: points.length === 1 ? "point" : "diameter", points, smooth: draft.smooth });
});
if (drawing.dataset.region) ask(true);
drawing.dataset.ready = "yes";
