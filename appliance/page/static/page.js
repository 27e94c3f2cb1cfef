// What the page does by itself: it keeps lists up to date, and shows another slice while a slider moves.
// Without it every part works by links and forms.
"use strict";

const POLL_MS = 4000;
const told = document.getElementById("told");

function tell(sentence) {
  if (told.textContent !== sentence) told.textContent = sentence;
}

// Exchanges a part of the page for what the server says now, and leaves the focus where it was.
async function refresh(part) {
  const headers = { "X-Lungstage-Poll": "1" };
  if (part.dataset.etag) headers["If-None-Match"] = part.dataset.etag;
  let response;
  try {
    response = await fetch(part.dataset.live, { headers, redirect: "error" });
  } catch {
    tell(told.dataset.away);
    return true;
  }
  if (response.status === 401) {
    tell(told.dataset.session);
    told.classList.remove("unseen");
    return false;
  }
  if (response.status !== 200) {
    if (response.status !== 304) tell(await response.text());
    return true;
  }
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
  tell(told.dataset.updated);
  return true;
}

function keepUpToDate(part) {
  const again = async () => {
    const goesOn = document.hidden || (await refresh(part));
    if (goesOn) setTimeout(again, POLL_MS);
  };
  setTimeout(again, POLL_MS);
}

// Slices: the latest that was asked for wins, and one is asked for at a time.
function view(form) {
  const [window_, region] = [form.elements.window, form.elements.region];
  for (const figure of form.querySelectorAll("figure")) {
    const [slider, picture, number] = [figure.querySelector("input"), figure.querySelector("img"), figure.querySelector("output")];
    const plane = figure.dataset.plane;
    const name = figure.querySelector("label").textContent;
    let busy = false;
    const address = () => {
      const query = new URLSearchParams({ window: window_.value, region: region.value });
      return `${form.dataset.picture}${plane}/${slider.value}.png?${query}`;
    };
    const show = () => {
      number.textContent = `${Number(slider.value) + 1} / ${Number(slider.max) + 1}`;
      if (busy) return;
      busy = true;
      const wanted = address();
      const next = new Image();
      const done = () => {
        busy = false;
        if (wanted !== address()) show();
      };
      next.onload = () => {
        picture.src = wanted;
        picture.alt = `${name} ${number.textContent}`;
        done();
      };
      next.onerror = done;
      next.src = wanted;
    };
    slider.addEventListener("input", show);
    picture.addEventListener("wheel", (event) => {
      event.preventDefault();
      slider.value = Number(slider.value) + Math.sign(event.deltaY);
      show();
    }, { passive: false });
    window_.addEventListener("change", show);
    region.addEventListener("change", show);
  }
}

document.documentElement.classList.add("scripted");
document.querySelectorAll("[data-live]").forEach(keepUpToDate);
const viewer = document.getElementById("viewer");
if (viewer) view(viewer);
