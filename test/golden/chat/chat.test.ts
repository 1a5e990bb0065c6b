import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { memoryFolder } from "../../../src/files/memory.js";
import { type ChatMessage, encodeChat, openChatTemplate } from "../../../src/runtime/chat.js";
import { createTokenizer } from "../../../src/text/tokenizer.js";

interface Golden {
  templates: Record<string, string>;
  conversations: Record<string, ChatMessage[]>;
  added: Record<string, number>;
  cases: { template: string; conversation: string; text?: string; ids?: number[]; refusal?: string }[];
}
const read = (name: string) => readFileSync(new URL(name, import.meta.url), "utf8");
const golden = JSON.parse(read("chat.json")) as Golden;

/** The tokenizer of the goldens: the word tokenizer and two special tokens more. */
function tokenizer() {
  const definition = JSON.parse(read("../text/word-tokenizer.json")) as { added_tokens: object[] };
  for (const [content, id] of Object.entries(golden.added)) {
    const rest = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
    definition.added_tokens.push({ id, content, ...rest });
  }
  return createTokenizer(JSON.stringify(definition));
}

describe("conversations are rendered and encoded as by transformers", () => {
  const tokens = tokenizer();
  for (const { template, conversation, text, ids, refusal } of golden.cases) {
    it(`${template}, ${conversation}`, async () => {
      const settings = { bos_token: "<s>", eos_token: { content: "</s>" }, chat_template: golden.templates[template] };
      const bytes = new TextEncoder().encode(JSON.stringify(settings));
      const chat = await openChatTemplate(memoryFolder("model", new Map([["tokenizer_config.json", bytes]])));
      const render = () => chat.render(golden.conversations[conversation]);
      if (refusal !== undefined) expect(render).toThrow(refusal);
      else {
        expect(render()).toBe(text);
        expect(Array.from(encodeChat(tokens, render()))).toEqual(ids);
      }
    });
  }
});
