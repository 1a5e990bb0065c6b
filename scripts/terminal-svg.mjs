// Draws text from standard input as a terminal window: npm start | node scripts/terminal-svg.mjs > docs/quickstart.svg
import { readFileSync } from "node:fs";

const WIDTH = 8.43;
const HEIGHT = 18;
const colours = new RegExp(`${String.fromCharCode(27)}\\[[0-9;]*m`, "g");
const text = readFileSync(0, "utf8").replace(colours, "");
const encode = (line) => line.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const lines = text.trimEnd().split("\n");
const columns = Math.max(...lines.map((line) => line.length));
const width = Math.ceil(columns * WIDTH + 32);
const height = lines.length * HEIGHT + 52;
console.log(`<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">
<title>${encode(lines[0])}, as the terminal shows it</title>
<rect width="100%" height="100%" rx="8" fill="#10141c"/>
<circle cx="18" cy="16" r="5" fill="#ff5f56"/><circle cx="36" cy="16" r="5" fill="#ffbd2e"/><circle cx="54" cy="16" r="5" fill="#27c93f"/>
<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="14" fill="#d6deeb" xml:space="preserve">`);
for (const [index, line] of lines.entries()) {
  if (line)
    console.log(
      `<text x="16" y="${46 + index * HEIGHT}" textLength="${(line.length * WIDTH).toFixed(1)}">${encode(line)}</text>`,
    );
}
console.log("</g>\n</svg>");
