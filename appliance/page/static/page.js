// Keeps lists up to date, and shows another slice while a slider moves.
// Without this script every part works with links and forms.
"use strict";

const POLL_MS = 4000;
const said = document.getElementById("said");

// Announces a change to screen readers. Shows an error to everyone until it is solved.
function tell(sentence, isWrong = false) {
  if (said.textContent !== sentence) said.textContent = sentence;
  said.classList.toggle("unseen", !isWrong);
}

// Replaces a part of the page by the current state from the server, and keeps the focus.
async function refresh(part) {
  const headers = { "X-Lungstage-Poll": "1" };
  if (part.dataset.etag) headers["If-None-Match"] = part.dataset.etag;
  let response;
  try {
    response = await fetch(part.dataset.live, { headers, redirect: "error" });
  } catch {
    tell(said.dataset.away, true);
    return true;
  }
  if (response.status === 401) {
    tell(said.dataset.session, true);
    return false;
  }
  if (response.status !== 200 && response.status !== 304) {
    tell(await response.text(), true);
    return true;
  }
  tell("");
  if (response.status === 304) return true;
  const isFirst = !part.dataset.etag;
  part.dataset.etag = response.headers.get("ETag") || "";
  const body = new DOMParser().parseFromString(await response.text(), "text/html").body;
  if (isFirst && body.textContent.trim() === part.textContent.trim()) return true;
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const key = focused && (focused.id ? `#${CSS.escape(focused.id)}` : null);
  const scrolled = part.querySelector(".scroll")?.scrollLeft || 0;
  part.replaceChildren(...body.childNodes);
  if (part.querySelector(".scroll")) part.querySelector(".scroll").scrollLeft = scrolled;
  if (key) part.querySelector(key)?.focus({ preventScroll: true });
  tell(said.dataset.updated);
  return true;
}

function keepUpToDate(part) {
  const again = async () => {
    const goesOn = document.hidden || (await refresh(part));
    if (goesOn) setTimeout(again, POLL_MS);
  };
  setTimeout(again, POLL_MS);
}

// Returns a function that loads the picture of an address: one request at a time, and the latest one counts.
function loader(picture, address, caption) {
  let busy = false;
  const load = () => {
    if (busy) return;
    busy = true;
    const wanted = address();
    const next = new Image();
    const done = () => {
      busy = false;
      if (wanted !== address()) load();
    };
    next.onload = () => {
      picture.src = wanted;
      picture.alt = caption();
      done();
    };
    next.onerror = done;
    next.src = wanted;
  };
  return load;
}

// Shows the next slice when the wheel turns over a picture.
function turnByWheel(picture, slider, show) {
  picture.addEventListener("wheel", (event) => {
    event.preventDefault();
    slider.value = Number(slider.value) + Math.sign(event.deltaY);
    show();
  }, { passive: false });
}

// Slices. While the viewer is open, it shows them.
function view(form) {
  const [window_, region] = [form.elements.window, form.elements.region];
  const sliders = {};
  const shows = [];
  let volume = null;
  for (const figure of form.querySelectorAll("figure")) {
    const [slider, picture, number] = [figure.querySelector("input"), figure.querySelector("img"), figure.querySelector("output")];
    const plane = figure.dataset.plane;
    const name = figure.querySelector("label").textContent;
    const address = () => {
      const query = new URLSearchParams({ window: window_.value, region: region.value });
      return `${form.dataset.study}picture/${plane}/${slider.value}.png?${query}`;
    };
    const count = () => {
      number.textContent = `${Number(slider.value) + 1} / ${Number(slider.max) + 1}`;
    };
    const load = loader(picture, address, () => `${name} ${number.textContent}`);
    const show = () => {
      count();
      if (!volume) load();
    };
    slider.addEventListener("input", () => {
      show();
      volume?.goTo(plane, Number(slider.value));
    });
    turnByWheel(picture, slider, show);
    window_.addEventListener("change", show);
    region.addEventListener("change", show);
    sliders[plane] = { slider, count };
    shows.push(show);
  }

  const [button, place, hint] = ["open-viewer", "volume", "viewer-hint"].map((id) => document.getElementById(id));
  if (!form.dataset.viewer) return;
  const trial = document.createElement("canvas").getContext("webgl2");
  trial?.getExtension("WEBGL_lose_context")?.loseContext();
  if (!trial) {
    hint.textContent = hint.dataset.webgl;
    return;
  }
  button.hidden = false;

  const setWindow = () => {
    const { low, high } = window_.selectedOptions[0].dataset;
    volume.window(Number(low), Number(high));
  };
  const setRegion = () =>
    volume.outline(region.value && `${form.dataset.study}region.nii?${new URLSearchParams({ region: region.value })}`);
  const close = (sentence) => {
    const shown = volume;
    volume = null;
    place.replaceChildren();
    shown?.free();
    place.hidden = true;
    form.classList.remove("opened");
    button.textContent = button.dataset.open;
    button.disabled = false;
    hint.textContent = sentence;
    shows.forEach((show) => show());
  };
  const open = async () => {
    button.disabled = true;
    hint.textContent = hint.dataset.loading;
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", place.dataset.label);
    canvas.addEventListener("webglcontextlost", () => canvas.isConnected && close(hint.dataset.webgl));
    place.replaceChildren(canvas);
    place.hidden = false;
    try {
      const { Volume } = await import("/static/volume.js");
      const counts = Object.fromEntries(Object.entries(sliders).map(([plane, { slider }]) => [plane, Number(slider.max) + 1]));
      volume = new Volume(canvas, counts, (plane, number) => {
        sliders[plane].slider.value = number;
        sliders[plane].count();
      });
      await volume.load(`${form.dataset.study}volume.nii`);
      setWindow();
      await setRegion();
      for (const [plane, { slider }] of Object.entries(sliders)) volume.goTo(plane, Number(slider.value));
    } catch (error) {
      close(error.message);
      return;
    }
    form.classList.add("opened");
    button.textContent = button.dataset.close;
    button.disabled = false;
    hint.textContent = hint.dataset.opened;
  };
  button.addEventListener("click", () => (volume ? close("") : open()));
  window_.addEventListener("change", () => volume && setWindow());
  region.addEventListener("change", () => volume && setRegion().catch((error) => (hint.textContent = error.message)));
}

document.documentElement.classList.add("scripted");
document.querySelectorAll("[data-live]").forEach(keepUpToDate);
const viewer = document.getElementById("viewer");
if (viewer) view(viewer);
