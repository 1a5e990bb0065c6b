import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { formatError, unsupportedError } from "../errors.js";
import { encodeInChunks } from "./chunks.js";
import { splitPiecesAtWords } from "./pieces.js";

/** Text to token ids and back, as the model was trained. */
export interface Tokenizer {
  /** Number of ids, added tokens included; a model's vocabulary may be larger (padding). */
  readonly size: number;
  /** What the tokenizer puts before a text by default, often a beginning-of-sequence token. `encode` leaves it out. */
  readonly beginTokens: readonly number[];
  /** Ids of the whole text. No special tokens are added; those written out in the text are recognised. */
  encode(text: string): Int32Array;
  /** Text of the ids; special tokens and ids that the tokenizer does not know are left out. */
  decode(ids: ArrayLike<number>): string;
  /** Text as it becomes certain, id by id. */
  stream(): TextStream;
  idOf(token: string): number | undefined;
}

/** Decodes one id at a time. The concatenation of everything returned equals `decode` of all the ids. */
export interface TextStream {
  /** The text that this id completes; "" while a character still misses bytes. */
  push(id: number): string;
  /** What was held back, at the end: an unfinished character comes out as U+FFFD. */
  flush(): string;
}

/** The part of the library that we use: its type files have relative imports that Node's resolution does not follow. */
interface Library {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
  decode(ids: number[], options: { skip_special_tokens: boolean; clean_up_tokenization_spaces: boolean }): string;
  token_to_id(token: string): number | undefined;
  id_to_token(id: number): string | undefined;
  get_vocab(): Map<string, number>;
}

/**
 * A tokenizer from the texts of tokenizer.json and, when there is one, tokenizer_config.json.
 * Throws "format" for text that is not such a file and "unsupported" for parts that the tokenizers library lacks.
 */
export function createTokenizer(tokenizerJson: string, configJson?: string): Tokenizer {
  const definition = parseObject(tokenizerJson, "tokenizer.json");
  const config = configJson === undefined ? {} : parseObject(configJson, "tokenizer_config.json");
  if (definition.model === undefined)
    throw formatError(
      "tokenizer.json has no `model`: expected the file that the Hugging Face tokenizers library writes",
    );
  let library: Library;
  try {
    library = new HuggingFaceTokenizer(definition, config) as unknown as Library;
    splitPiecesAtWords(library, definition);
  } catch (error) {
    throw unsupportedError(`tokenizer.json cannot be used: ${(error as Error).message}`);
  }
  const size = library.get_vocab().size;

  const encode = (text: string): number[] => {
    const { ids } = library.encode(text, { add_special_tokens: false });
    if (!ids.includes(undefined as unknown as number)) return ids;
    throw unsupportedError("the text has characters that the tokenizer has no token for, not even one for the unknown");
  };
  const decode = (ids: ArrayLike<number>): string => {
    const known = Array.from(ids).filter((id) => library.id_to_token(id) !== undefined);
    if (known.length === 0) return "";
    return library.decode(known, { skip_special_tokens: true, clean_up_tokenization_spaces: false });
  };
  return {
    size,
    beginTokens: beginTokens(library),
    encode: (text) => (text === "" ? new Int32Array(0) : encodeInChunks(encode, text)),
    decode,
    stream: () => createTextStream(decode),
    idOf: (token) => library.token_to_id(token),
  };
}

/** The ids before those of a text in its encoding with special tokens. */
function beginTokens(library: Library): number[] {
  const bare = library.encode("a", { add_special_tokens: false }).ids;
  const full = library.encode("a", { add_special_tokens: true }).ids;
  const start = full.findIndex((_, index) => bare.every((id, i) => full[index + i] === id));
  return start > 0 ? full.slice(0, start) : [];
}

const REPLACEMENT = "\ufffd";

/**
 * Decodes a growing window of ids. It starts with one id whose text was given already, because a decoder may treat the
 * first id in its own way (drop a leading space); a trailing U+FFFD may be the start of a character and is held back.
 */
function createTextStream(decode: (ids: readonly number[]) => string): TextStream {
  let window: number[] = [];
  let given = 0; // characters of the window's text that were returned
  const take = (text: string, end: number): string => {
    const fresh = text.slice(given, end);
    given = Math.max(given, end);
    return fresh;
  };
  return {
    push(id) {
      window.push(id);
      const text = decode(window);
      if (text.endsWith(REPLACEMENT)) return take(text, text.length - 1);
      const fresh = take(text, text.length);
      const last = decode([id]);
      if (last !== "") {
        window = [id];
        given = last.length;
      }
      return fresh;
    },
    flush() {
      const text = decode(window);
      const fresh = take(text, text.length);
      window = [];
      given = 0;
      return fresh;
    },
  };
}

function parseObject(json: string, name: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (error) {
    throw formatError(`${name} is not valid JSON: ${(error as Error).message}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw formatError(`${name}: expected a JSON object`);
  return value as Record<string, unknown>;
}
