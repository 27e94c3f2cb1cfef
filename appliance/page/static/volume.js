// The viewer: NiiVue with WebGL 2, for the volume from the server of the page. Loaded when the viewer is opened.
import { DRAG_MODE, NVImage, Niivue, SHOW_RENDER } from "./niivue.js";

const OPTIONS = {
  isRadiologicalConvention: true,
  sagittalNoseLeft: true,
  multiplanarShowRender: SHOW_RENDER.NEVER,
  dragMode: DRAG_MODE.pan,
  dragAndDropEnabled: false, // only the study is shown
  crosshairColor: [0.35, 0.75, 1, 0.7],
  crosshairWidth: 0.4,
  fontColor: [1, 1, 1, 1],
  loadingText: "",
  logLevel: "error",
  viewModeHotKey: "",
  clipPlaneHotKey: "",
  cycleClipPlaneHotKey: "",
};
const AXES = ["sagittal", "coronal", "axial"]; // in NiiVue, whose fractions count in the opposite direction to the plane numbers
const OUTLINE = { R: [0, 255], G: [0, 196], B: [0, 0], A: [0, 255], I: [0, 1], labels: ["", ""] };

async function fetched(address) {
  const response = await fetch(address, { redirect: "error" });
  if (!response.ok) throw new Error(await response.text());
  return NVImage.loadFromUrl({ url: await response.arrayBuffer(), name: "volume.nii" });
}

export class Volume {
  // `moved` is called with plane and number when the user clicks into the images or scrolls them.
  constructor(canvas, counts, moved) {
    this.canvas = canvas;
    this.counts = counts;
    this.view = new Niivue(OPTIONS);
    this.view.onLocationChange = ({ frac }) => {
      AXES.forEach((plane, k) => moved(plane, Math.max(0, Math.min(counts[plane] - 1, Math.floor((1 - frac[k]) * counts[plane])))));
    };
  }

  async load(address) {
    await this.view.attachToCanvas(this.canvas);
    this.canvas.tabIndex = -1; // with the keyboard, users move the sliders
    this.view.addVolume(await fetched(address));
    this.view.setDrawColormap(OUTLINE);
    this.view.drawOpacity = 0.002; // of the inside; the rim is opaque
    this.view.drawRimOpacity = 1;
  }

  window(low, high) {
    const [image] = this.view.volumes;
    image.cal_min = low;
    image.cal_max = high;
    this.view.updateGLVolume();
  }

  async outline(address) {
    if (address) this.view.loadDrawing(await fetched(address));
    else this.view.closeDrawing();
    this.view.drawScene();
  }

  // Frees the graphics memory, which a removed canvas would keep for a while.
  free() {
    this.view.cleanup();
    this.view.gl?.getExtension("WEBGL_lose_context")?.loseContext();
  }

  goTo(plane, number) {
    const place = [...this.view.scene.crosshairPos];
    place[AXES.indexOf(plane)] = 1 - (number + 0.5) / this.counts[plane];
    this.view.scene.crosshairPos = place;
    this.view.drawScene();
  }
}
