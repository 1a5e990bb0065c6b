import { formatError, usageError } from "../errors.js";

/** Between the documents of a .jsonl corpus: a blank line, as between the paragraphs of a plain text. */
export const DOCUMENT_SEPARATOR = "\n\n";

/**
 * The text of a corpus file. A name that ends in .jsonl holds one JSON object a line, with the document in `text`; the
 * documents are joined by a blank line. Anything else is plain UTF-8 text. A byte order mark is dropped.
 * Throws "format" with the line number, and "usage" when there is no text at all.
 */
export function parseCorpus(name: string, bytes: Uint8Array): string {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes); // drops a byte order mark
  } catch {
    throw formatError(`${name} is not UTF-8 text`, "convert it to UTF-8, or name a .jsonl file with a `text` field");
  }
  if (name.toLowerCase().endsWith(".jsonl")) text = documentsOf(name, text).join(DOCUMENT_SEPARATOR);
  if (text.trim() === "") throw usageError(`${name} holds no text`, "name a text with at least a few thousand words");
  return text;
}

function documentsOf(name: string, text: string): string[] {
  const documents: string[] = [];
  text.split("\n").forEach((line, index) => {
    if (line.trim() === "") return;
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (error) {
      throw formatError(`${name}, line ${index + 1}: not valid JSON (${(error as Error).message})`);
    }
    const document = typeof value === "object" && value !== null ? (value as { text?: unknown }).text : undefined;
    if (typeof document !== "string")
      throw formatError(`${name}, line ${index + 1}: expected an object with the document in "text"`);
    documents.push(document);
  });
  return documents;
}
