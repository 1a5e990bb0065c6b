// Tokenizers in the SentencePiece style (LLaMA 1 and 2) have no pre-tokenizer: the whole text is one piece, and merging a
// piece of a million characters takes a minute. Where no merge can cross a word's start, cutting there changes nothing.

const WORD_START = "\u2581";

interface PreTokenizing {
  pre_tokenizer?: ((text: string, options?: unknown) => string[]) | null;
}

/**
 * Makes a BPE tokenizer cut its pieces before each "▁" that follows another character, if that is exact: no merge gives
 * a token with "▁" inside, and no rule depends on the ends of a piece. Otherwise leaves it as it is.
 */
export function splitPiecesAtWords(tokenizer: object, definition: Record<string, unknown>): boolean {
  const model = definition.model as Record<string, unknown>;
  if (model.type !== undefined && model.type !== "BPE") return false;
  if (!Array.isArray(model.merges)) return false;
  if (model.ignore_merges || model.end_of_word_suffix || model.continuing_subword_prefix) return false;
  if (!model.merges.some(joinsWordStart)) return false; // not of this style: its own pre-tokenizer cuts
  if (model.merges.some(crossesWordStart)) return false;
  const target = tokenizer as PreTokenizing;
  const original = target.pre_tokenizer;
  target.pre_tokenizer = (text, options) => (original ? original(text, options) : [text]).flatMap(cut);
  return true;
}

const merged = (merge: unknown): string =>
  Array.isArray(merge) ? merge.join("") : typeof merge === "string" ? merge.replace(" ", "") : "";
const joinsWordStart = (merge: unknown): boolean => merged(merge).startsWith(WORD_START);
const crossesWordStart = (merge: unknown): boolean => /[^\u2581]\u2581/u.test(merged(merge));
const cut = (piece: string): string[] => piece.split(/(?<=[^\u2581])(?=\u2581)/u);
