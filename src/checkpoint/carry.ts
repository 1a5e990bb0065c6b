import type { Folder, OutputFolder } from "../files/folder.js";
import type { JsonObject } from "../files/json.js";

// What goes from a checkpoint to one made of it besides weights.

/** Files that belong to the model whatever its weights: tokenizer, generation defaults, chat template, licence. */
export const CARRIED: ReadonlySet<string> = new Set([
  "tokenizer.json",
  "tokenizer_config.json",
  "tokenizer.model",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "vocab.txt",
  "merges.txt",
  "generation_config.json",
  "chat_template.json",
  "chat_template.jinja",
  "LICENSE",
  "LICENSE.txt",
  "NOTICE",
  "USE_POLICY.md",
]);

const CHUNK = 8 * 2 ** 20;

/** Copies the files that belong to the model. Returns their names. */
export async function carryFiles(source: Folder, output: OutputFolder): Promise<string[]> {
  const names = (await source.list()).filter((name) => CARRIED.has(name));
  for (const name of names) {
    const file = await source.open(name);
    try {
      const sink = await output.create(name);
      for (let offset = 0; offset < file.size; offset += CHUNK) {
        await sink.write(await file.read(offset, Math.min(CHUNK, file.size - offset)));
      }
      await sink.close();
    } finally {
      await file.close();
    }
  }
  return names;
}

export async function writeJson(output: OutputFolder, name: string, value: unknown): Promise<void> {
  const sink = await output.create(name);
  await sink.write(new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`));
  await sink.close();
}

const DTYPES = { f16: "float16", bf16: "bfloat16" } as const;

/** The model's own configuration with another number type, under the key that it uses (transformers 5 says `dtype`). */
export function withDtype(config: JsonObject, dtype: "f16" | "bf16"): JsonObject {
  const { quantization_config: _, quant_config: __, ...own } = config;
  const key = "dtype" in own ? "dtype" : "torch_dtype";
  return { ...own, [key]: DTYPES[dtype] };
}
