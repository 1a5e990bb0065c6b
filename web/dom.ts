/** An element of the page by its id; a missing one is a mistake of ours. */
export function byId<T extends HTMLElement>(id: string, type: new () => T): T {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`the page has no ${type.name} #${id}`);
  return element;
}

/** A new element with text or children. Text never becomes markup. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Partial<HTMLElementTagNameMap[K]> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** A row of a table: its first cell is its heading; `numbers` counts the cells at the end that hold numbers. */
export function makeRow(cells: readonly string[], numbers: number): HTMLTableRowElement {
  const row = make("tr");
  cells.forEach((text, index) => {
    const cell = make(index === 0 ? "th" : "td", {}, text);
    if (index === 0) cell.scope = "row";
    if (index >= cells.length - numbers) cell.className = "number";
    row.append(cell);
  });
  return row;
}

export const input = (id: string): HTMLInputElement => byId(id, HTMLInputElement);
export const select = (id: string): HTMLSelectElement => byId(id, HTMLSelectElement);
export const button = (id: string): HTMLButtonElement => byId(id, HTMLButtonElement);
export const element = (id: string): HTMLElement => byId(id, HTMLElement);
