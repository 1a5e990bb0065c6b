export { DOCUMENT_SEPARATOR, parseCorpus } from "./corpus.js";
export { openTokenizer } from "./load.js";
export { createTokenizer, type TextStream, type Tokenizer } from "./tokenizer.js";
export { consecutiveWindows, type DrawOptions, drawWindows } from "./windows.js";
