import { formatError, unsupportedError, usageError } from "../errors.js";
import type { Folder } from "../files/folder.js";
import { decodeText, isObject, JSON_BYTES, type JsonObject, parseJson, readFile } from "../files/json.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { type JinjaTemplate, parseJinja } from "./jinja.js";

// Conversations as a chat model was trained to read them: the template in its checkpoint.

export interface ChatMessage {
  role: "system" | "user" | "assistant";
  content: string;
}

export interface ChatTemplate {
  /** The file that it comes from. */
  readonly source: string;
  /** Tokens that end an answer besides those of config.json: of generation_config.json, and the tokenizer's. */
  endTokens(tokenizer: Tokenizer): number[];
  /**
   * The conversation as text, to the beginning of the next answer. Throws "usage" for no messages and where the template refuses
   * them (many allow no system message), "format" where it fails.
   */
  render(messages: readonly ChatMessage[]): string;
}

const TEXT_FILE = "chat_template.jinja";
const JSON_FILE = "chat_template.json";
const SETTINGS = "tokenizer_config.json";
const SPECIAL = "special_tokens_map.json";
const GENERATION = "generation_config.json";
const TEMPLATE_BYTES = 2 ** 20;

/**
 * The chat template in a checkpoint's folder: chat_template.jinja, chat_template.json or `chat_template` of
 * tokenizer_config.json, the first of them that is there; of several named ones the one called "default". `now` is the time
 * that a template may ask for. Throws "unsupported" where there is none and "format" where it cannot be used.
 */
export async function openChatTemplate(folder: Folder, now: () => Date = () => new Date()): Promise<ChatTemplate> {
  const files = await folder.list();
  const text = async (name: string, limit: number) =>
    decodeText(await readFile(folder, name, limit), `${folder.name}/${name}`);
  const object = async (name: string): Promise<JsonObject> => {
    if (!files.includes(name)) return {};
    const value = parseJson(await text(name, JSON_BYTES), `${folder.name}/${name}`);
    if (!isObject(value)) throw formatError(`${folder.name}/${name}: expected a JSON object`);
    return value;
  };
  const settings = await object(SETTINGS);
  const tokens = specialTokens({ ...(await object(SPECIAL)), ...settings });
  const ends = tokenIds((await object(GENERATION)).eos_token_id);
  let source = TEXT_FILE;
  let template: string | undefined;
  if (files.includes(source)) template = await text(source, TEMPLATE_BYTES);
  else {
    source = JSON_FILE;
    template = chooseTemplate((await object(source)).chat_template, `${folder.name}/${source}`);
    if (template === undefined) {
      source = SETTINGS;
      template = chooseTemplate(settings.chat_template, `${folder.name}/${source}`);
    }
  }
  if (template === undefined) {
    throw unsupportedError(
      `${folder.name} has no chat template: neither ${TEXT_FILE} nor ${JSON_FILE}, and no \`chat_template\` in ${SETTINGS}`,
      "it may be a base model: give it a text to continue with --prompt, or copy the template of its chat version",
    );
  }
  const parsed = parseJinja(template, `the chat template of ${folder.name} (${source})`, now);
  return {
    source,
    endTokens(tokenizer) {
      const own = tokens.eos_token === undefined ? undefined : tokenizer.idOf(tokens.eos_token);
      return own === undefined ? ends : [...new Set([...ends, own])];
    },
    render: (messages) => renderMessages(parsed, messages, tokens),
  };
}

/**
 * Token ids of a rendered conversation. Special tokens that are written out in it become those tokens, in the messages too, as in
 * transformers; none are added, for the template has them.
 */
export const encodeChat = (tokenizer: Tokenizer, text: string): Int32Array => tokenizer.encode(text);

function renderMessages(
  template: JinjaTemplate,
  messages: readonly ChatMessage[],
  tokens: Record<string, string>,
): string {
  if (messages.length === 0) throw usageError("a conversation needs at least one message");
  const inputLength = messages.reduce((sum, { content }) => sum + content.length, 0);
  const plain = messages.map(({ role, content }) => ({ role, content }));
  return template({ ...tokens, messages: plain, add_generation_prompt: true }, inputLength);
}

/** The text of `chat_template`: a string, or the one that counts of [{ name, template }]. */
function chooseTemplate(value: unknown, where: string): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === "string") return value;
  if (Array.isArray(value)) {
    const named = value.filter(
      (entry): entry is { name: string; template: string } =>
        isObject(entry) && typeof entry.name === "string" && typeof entry.template === "string",
    );
    const chosen = named.find(({ name }) => name === "default") ?? (named.length === 1 ? named[0] : undefined);
    if (chosen) return chosen.template;
    const names = named.map(({ name }) => name.slice(0, 40)).slice(0, 10);
    throw formatError(
      `${where} has ${named.length} chat templates${names.length > 0 ? ` (${names.join(", ")})` : ""}, and none is called "default"`,
      `write the one to use to ${TEXT_FILE}`,
    );
  }
  throw formatError(`${where}: expected \`chat_template\` to be a text or a list of { name, template }`);
}

/** bos_token and its like: a text, or an object with its `content`. */
function specialTokens(settings: JsonObject): Record<string, string> {
  const tokens: Record<string, string> = {};
  for (const [name, value] of Object.entries(settings)) {
    if (!/^[a-z]+_token$/.test(name)) continue;
    const content = isObject(value) ? value.content : value;
    if (typeof content === "string") tokens[name] = content;
  }
  return tokens;
}

function tokenIds(value: unknown): number[] {
  const ids = Array.isArray(value) ? value : [value];
  return ids.filter((id): id is number => Number.isSafeInteger(id) && id >= 0);
}
