// Makes one file from NiiVue and its dependencies, and a NOTICE with all their licences.
// node bundle.mjs SCRIPT NOTICE
import { build } from "esbuild";
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const LICENCES = ["BSD-2-Clause", "ISC", "MIT"]; // keep the same list in setup.py
const WHITE = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mP4DwABAQEAHLCMmQAAAABJRU5ErkJggg=="; // one pixel
const [script, notice] = process.argv.slice(2);

// NiiVue contains a photograph for shading surfaces, without its source. Slices do not need it.
const withoutPhotograph = {
  name: "without-photograph",
  setup: ({ onLoad }) =>
    onLoad({ filter: /@niivue.niivue.build.niivue.index\.js$/ }, ({ path }) => {
      const parts = readFileSync(path, "utf8").split(/data:image\/jpeg;base64,[^"]*/);
      if (parts.length !== 2) throw new Error(`${path} contains ${parts.length - 1} photographs: check their source and licence`);
      return { contents: parts.join(WHITE), loader: "js" };
    }),
};

const made = await build({
  stdin: {
    contents: 'export { DRAG_MODE, NVImage, Niivue, SHOW_RENDER, SLICE_TYPE } from "@niivue/niivue";',
    resolveDir: ".",
  },
  alias: { zarrita: "./nothing.js" },
  plugins: [withoutPhotograph],
  bundle: true,
  format: "esm",
  minify: true,
  target: "es2022",
  legalComments: "none", // they are in the NOTICE
  metafile: true,
  outfile: script,
  logLevel: "warning",
});

const pictures = readFileSync(script, "utf8").match(/data:image/g).length;
if (pictures !== 2) throw new Error(`${script} contains ${pictures} pictures instead of only the font and a white pixel`);

const [{ inputs }] = Object.values(made.metafile.outputs);
const folders = new Set();
for (const [path, { bytesInOutput }] of Object.entries(inputs)) {
  const found = path.match(/^.*node_modules\/(?:@[^/]+\/)?[^/]+/);
  if (found && bytesInOutput > 0) folders.add(found[0]);
}

function textOf(folder, name) {
  const own = readdirSync(folder).find((file) => /^licen[sc]e(\.md|\.txt)?$/i.test(file));
  const kept = `${name.replace("/", "__")}.licence.txt`; // for a package without a licence file
  if (!own && !existsSync(kept)) throw new Error(`${name} contains no licence text, and there is no ${kept}`);
  return readFileSync(own ? join(folder, own) : kept, "utf8").trim();
}

const parts = [...folders].sort().map((folder) => {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  if (!LICENCES.includes(license)) throw new Error(`${name} is under ${license}: add it here and in setup.py`);
  return `${name} ${version} (${license})\n\n${textOf(folder, name)}\n`;
});
const head = "The viewer of the page (lungstage/appliance/page/static/niivue.js) holds these works of others.\n";
writeFileSync(notice, [head, ...parts].join(`\n${"-".repeat(78)}\n\n`));
