// `npm test`: build, lint, types, layers, then every test. The last line is "N passed, N failed"; each check counts as one.
// Arguments go to vitest: `npm test -- src/text` runs the checks and the tests of one folder.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

let passed = 0;
let failed = 0;

/** Runs a script of Node with its output on ours; true when it succeeded. */
function run(title, script, ...options) {
  console.log(`\n== ${title}`);
  const startedAt = performance.now();
  const { status, error } = spawnSync(process.execPath, [script, ...options], { stdio: "inherit" });
  if (error) console.error(error.message);
  console.log(
    `== ${title}: ${status === 0 ? "ok" : "FAILED"} (${((performance.now() - startedAt) / 1000).toFixed(1)} s)`,
  );
  return status === 0;
}

function check(title, script, ...options) {
  if (run(title, script, ...options)) passed++;
  else failed++;
}

/** Adds vitest's own counts; a file that fails to load, or an error outside of tests, counts as one failure. */
function countTests(file, succeeded) {
  let report = { numPassedTests: 0, numFailedTests: 0, numPendingTests: 0, numTodoTests: 0, testResults: [] };
  try {
    report = JSON.parse(readFileSync(file, "utf8"));
  } catch {
    console.error("vitest left no report");
  }
  const unloaded = report.testResults.filter(
    ({ status, assertionResults }) => status === "failed" && !assertionResults.some((test) => test.status === "failed"),
  ).length;
  passed += report.numPassedTests;
  failed += report.numFailedTests + unloaded;
  if (!succeeded && report.numFailedTests + unloaded === 0) failed++;
  const skipped = report.numPendingTests + report.numTodoTests;
  if (skipped > 0) console.log(`${skipped} tests skipped`);
}

const folder = mkdtempSync(join(tmpdir(), "bitwright-test-"));
try {
  check("build", "scripts/build.mjs");
  check("lint", "node_modules/@biomejs/biome/bin/biome", "check", ".");
  check("types", "node_modules/typescript/bin/tsc", "--noEmit");
  check("layers", "scripts/layers.mjs");
  const report = join(folder, "report.json");
  const succeeded = run(
    "tests",
    "node_modules/vitest/vitest.mjs",
    "run",
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${report}`,
    ...process.argv.slice(2),
  );
  countTests(report, succeeded);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
console.log(`\n${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
