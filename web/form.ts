import type { CheckpointFormat, MethodName, RecipeInput } from "../src/index.js";
import { byId, element, input, select } from "./dom.js";
import type { EngineChoice, EngineInput, JobInput, RunInput, TextSource } from "./protocol.js";

/** What is wrong with a field, before anybody else sees its value. */
export class FieldProblem extends Error {
  constructor(
    readonly field: HTMLInputElement,
    message: string,
  ) {
    super(message);
  }
}

export const methodOf = (): MethodName =>
  byId("form", HTMLFormElement).querySelector<HTMLInputElement>("input[name=method]:checked")?.value as MethodName;

/** Throws a FieldProblem. */
export function readEngine(): EngineInput {
  const choice = select("engine").value as EngineChoice;
  const gigabytes = choice.startsWith("wasm") ? undefined : numberOf("device-memory");
  return { choice, deviceMemory: gigabytes && Math.floor(gigabytes * 1e9) };
}

/** Shows the fields that the method has. */
export function showMethodFields(): void {
  const method = methodOf();
  for (const part of document.querySelectorAll<HTMLElement>("[data-methods]")) {
    part.hidden = !(part.dataset.methods ?? "").split(" ").includes(method);
  }
  element("text-file-field").hidden = select("text").value !== "own";
  element("evaluate-field").hidden = !input("evaluate").checked;
  element("device-memory-field").hidden = select("engine").value.startsWith("wasm");
}

/** The number in a field; undefined when it is empty and may be. */
function numberOf(id: string): number | undefined {
  const field = input(id);
  if (field.value === "" && field.placeholder !== "" && field.validity.valid) return undefined;
  if (field.value === "" || !field.validity.valid) {
    const label = field.labels?.[0]?.textContent ?? id;
    const whole = field.step === "1" ? "a whole number" : "a number";
    throw new FieldProblem(field, `${label}: expected ${whole} from ${field.min} to ${field.max}`);
  }
  return field.valueAsNumber;
}

/** The recipe of the form: only what the method knows. Throws a FieldProblem. */
function recipeOf(): RecipeInput {
  const method = methodOf();
  const calibration = method === "rtn" ? {} : { samples: numberOf("samples"), window: numberOf("window") };
  if (method === "vptq") {
    const residual = select("residual").value;
    const outliers = numberOf("outliers") ?? 0;
    const vectorLength = numberOf("vectorLength");
    const codebook = Number(select("codebook").value);
    return {
      method,
      ...calibration,
      vectorLength,
      codebook,
      residual: residual === "" ? [] : [Number(residual)],
      // halves of the vectors, with as many codewords: finer, and still small
      ...(outliers > 0
        ? { outliers, outlierVectorLength: Math.max(1, Math.floor((vectorLength ?? 4) / 2)), outlierCodebook: codebook }
        : {}),
    };
  }
  const group = select("group").value;
  return {
    method,
    ...calibration,
    bits: Number(select("bits").value) as RecipeInput["bits"],
    group: group === "channel" ? group : Number(group),
    symmetric: input("symmetric").checked,
    ...(method === "gptq" ? { actOrder: input("actOrder").checked } : {}),
    ...(method === "omniquant" ? { epochs: numberOf("epochs"), tuneEpochs: numberOf("tuneEpochs") } : {}),
  };
}

const BUNDLED = { c4: "c4.txt", wikitext2: "wikitext2.txt" } as const;
const fetched = new Map<string, Promise<Blob>>();

/** A text that comes with the page. */
async function bundledText(name: keyof typeof BUNDLED): Promise<TextSource> {
  let text = fetched.get(name);
  if (!text) {
    text = fetch(BUNDLED[name]).then((response) => {
      if (!response.ok) throw new Error(`the text ${BUNDLED[name]} is missing beside the page (${response.status})`);
      return response.blob();
    });
    fetched.set(name, text);
    text.catch(() => fetched.delete(name));
  }
  return { id: name, name, text: await text };
}

async function calibrationText(): Promise<TextSource> {
  if (select("text").value !== "own") return bundledText("c4");
  const field = input("text-file");
  const file = field.files?.[0];
  if (!file) throw new FieldProblem(field, "Calibration: choose the file of your text");
  return { id: `${file.name} ${file.size} ${file.lastModified}`, name: file.name, text: file };
}

/** The job that the form describes. Throws a FieldProblem. */
export async function readJob(): Promise<JobInput> {
  const recipe = recipeOf();
  // rounding reads no text: none is fetched for it
  const calibration =
    recipe.method === "rtn" ? { id: "none", name: "none", text: new Blob() } : await calibrationText();
  return { recipe, format: (select("format").value || undefined) as CheckpointFormat | undefined, calibration };
}

export async function readEvaluation(): Promise<RunInput["evaluation"]> {
  if (!input("evaluate").checked) return undefined;
  return { text: await bundledText("wikitext2"), windows: numberOf("evaluate-windows") ?? 1 };
}
