import { formatError, unsupportedError } from "../errors.js";
import type { Folder } from "../files/folder.js";
import { decodeText, JSON_BYTES, readFile } from "../files/json.js";
import { createTokenizer, type Tokenizer } from "./tokenizer.js";

const DEFINITION = "tokenizer.json";
const SETTINGS = "tokenizer_config.json";

/** The tokenizer in a checkpoint's folder. Throws "format" or "unsupported" where there is none that can be used. */
export async function openTokenizer(folder: Folder): Promise<Tokenizer> {
  const files = await folder.list();
  if (!files.includes(DEFINITION)) {
    const other = files.find((file) => file === "tokenizer.model" || file === "vocab.json");
    if (other !== undefined) {
      throw unsupportedError(
        `${folder.name} has its tokenizer as ${other} only`,
        `convert it to ${DEFINITION} with AutoTokenizer.from_pretrained(..).save_pretrained(..) of transformers`,
      );
    }
    throw formatError(`${folder.name} has no ${DEFINITION}`, "copy the tokenizer of the model into the folder");
  }
  const read = async (name: string) => decodeText(await readFile(folder, name, JSON_BYTES), `${folder.name}/${name}`);
  return createTokenizer(await read(DEFINITION), files.includes(SETTINGS) ? await read(SETTINGS) : undefined);
}
