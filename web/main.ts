import { formatBytes, formatParameters } from "../src/report/format.js";
import { RequestFailed, startWorker } from "./client.js";
import { button, byId, element, input, make, select } from "./dom.js";
import { FieldProblem, readEngine, readEvaluation, readJob, showMethodFields } from "./form.js";
import { watchModelChoice } from "./model-picker.js";
import { showPlan } from "./plan-view.js";
import type { Failure, ModelSource, PlanInfo } from "./protocol.js";
import { hideResult, showResult, watchDownloads } from "./result-view.js";
import { createRunView } from "./run-view.js";

// The page: a form, a plan that follows it, one job at a time. All work is in the worker.

const view = createRunView();
const worker = startWorker((event) => view.onEvent(event));

let hasModel = false;
let hasEngine = false;
let plan: PlanInfo | undefined;
let isRunning = false;
/** Counts plans: only the newest is shown. */
let planned = 0;

/** Shows what is wrong, below the part of the page that it is about; else where a job is begun. */
function showFailure(failure: Failure | undefined, about?: HTMLElement): void {
  const box = element("failure");
  box.hidden = failure === undefined;
  if (!failure) return;
  if (about) about.after(box);
  else element("actions").before(box);
  const { message, remedy } = failure;
  box.replaceChildren(make("p", {}, make("b", {}, "This does not work: "), message));
  if (remedy !== undefined) box.append(make("p", {}, "What to do: ", remedy));
}

function failureOf(error: unknown): Failure {
  if (error instanceof RequestFailed) return error.failure;
  if (error instanceof FieldProblem) return { kind: "usage", message: error.message };
  return { kind: "internal", message: error instanceof Error ? error.message : String(error) };
}

/** Marks the field that a problem is about. */
function markField(error: unknown): void {
  for (const field of document.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  if (error instanceof FieldProblem) error.field.setAttribute("aria-invalid", "true");
}

function updateActions(): void {
  const finished = plan?.finished ?? 0;
  const start = button("start");
  start.hidden = isRunning;
  start.disabled = !plan;
  start.textContent = finished > 0 ? "Continue" : "Quantize";
  button("again").hidden = isRunning || finished === 0;
  button("stop").hidden = !isRunning;
  byId("inputs", HTMLFieldSetElement).disabled = isRunning;
  element("why-not").textContent = isRunning
    ? ""
    : finished > 0
      ? `${finished} of ${plan?.linears} linears of this job are finished and kept.`
      : plan
        ? ""
        : !hasEngine
          ? "There is no engine yet."
          : !hasModel
            ? "Choose a model first."
            : "Waiting for a plan.";
}

let timer: ReturnType<typeof setTimeout> | undefined;

/** Plans anew when the form has been quiet for a moment. */
function planSoon(): void {
  clearTimeout(timer);
  timer = setTimeout(() => void makePlan(), 150);
}

async function makePlan(): Promise<void> {
  clearTimeout(timer);
  const turn = ++planned;
  plan = undefined;
  updateActions();
  if (!hasModel || !hasEngine || isRunning) return;
  try {
    const next = await worker.ask("plan", await readJob());
    if (turn !== planned) return;
    plan = next;
    showPlan(next);
    showFailure(undefined);
    markField(undefined);
  } catch (error) {
    if (turn !== planned) return;
    element("plan").hidden = true;
    showFailure(failureOf(error));
    markField(error);
  }
  updateActions();
}

async function useEngine(): Promise<void> {
  hasEngine = false;
  planned++;
  plan = undefined;
  updateActions();
  const info = element("engine-info");
  info.textContent = "starting ...";
  const hint = element("engine-hint");
  hint.hidden = true;
  try {
    const { name, description, reason, hint: text } = await worker.ask("engine", readEngine());
    info.textContent = `${name}: ${description} (${reason})`;
    hint.textContent = text ?? "";
    hint.hidden = text === undefined;
    hasEngine = true;
    showFailure(undefined);
    markField(undefined);
    await makePlan();
  } catch (error) {
    info.textContent = "";
    markField(error);
    showFailure(failureOf(error), info);
    updateActions();
  }
}

async function openModel(source: ModelSource): Promise<void> {
  hasModel = false;
  planned++;
  plan = undefined;
  hideResult();
  element("run").hidden = true;
  element("plan").hidden = true;
  updateActions();
  showFailure(undefined);
  const outcome = element("model");
  outcome.textContent = "opening ...";
  try {
    const model = await worker.ask("open", source);
    const { name, family, blocks, parameters, tensorBytes } = model;
    outcome.textContent = `${name}: ${family}, ${blocks} blocks, ${formatParameters(parameters)} parameters, ${formatBytes(tensorBytes)}`;
    hasModel = true;
    await makePlan();
  } catch (error) {
    outcome.textContent = "";
    showFailure(failureOf(error), outcome);
    updateActions();
  }
}

async function run(resume: boolean): Promise<void> {
  if (isRunning || !plan) return;
  isRunning = true;
  showFailure(undefined);
  hideResult();
  updateActions();
  view.start();
  button("stop").disabled = false;
  button("stop").focus();
  let failure: Failure | undefined;
  try {
    const evaluation = await readEvaluation();
    const result = await worker.ask("run", { ...(await readJob()), resume, evaluation });
    view.end("Done.", true);
    showResult(result);
    element("result-title").focus();
  } catch (error) {
    failure = failureOf(error);
    const stopped = failure.kind === "aborted";
    view.end(stopped ? "Stopped. What is finished is kept." : "It ended before it was done.", false);
    if (stopped) failure = undefined;
    markField(error);
  }
  isRunning = false;
  await makePlan();
  if (failure) showFailure(failure);
  if (element("result").hidden) button("start").focus();
}

byId("form", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  void run(true);
});
button("again").addEventListener("click", async () => {
  try {
    await worker.ask("forget", await readJob());
    await run(false);
  } catch (error) {
    showFailure(failureOf(error));
  }
});
button("stop").addEventListener("click", () => {
  button("stop").disabled = true;
  element("progress-text").textContent = "stopping ...";
  worker.stop();
});
byId("inputs", HTMLFieldSetElement).addEventListener("input", ({ target }) => {
  if (
    !(target instanceof HTMLElement) ||
    ["folder", "address", "evaluate-windows", "device-memory"].includes(target.id)
  )
    return;
  showMethodFields();
  if (target.id === "evaluate") return;
  if (target === select("engine")) void useEngine();
  else planSoon();
});
input("device-memory").addEventListener("change", () => void useEngine());
addEventListener("beforeunload", (event) => {
  if (isRunning) event.preventDefault();
});
watchModelChoice(
  (source) => void openModel(source),
  (message) => showFailure({ kind: "usage", message }, element("model")),
);
watchDownloads();
showMethodFields();
updateActions();
void useEngine();
