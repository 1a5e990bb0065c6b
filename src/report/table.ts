/** A table as data: the terminal draws it with lines, documents as Markdown, a page as HTML. */
export interface Table {
  columns: { title: string; align: "left" | "right" }[];
  rows: string[][];
}

/** A table from rows of values: each column says how it reads a row. */
export function tableOf<Row>(
  rows: readonly Row[],
  columns: readonly { title: string; align?: "left" | "right"; value: (row: Row) => string }[],
): Table {
  return {
    columns: columns.map(({ title, align = "right" }) => ({ title, align })),
    rows: rows.map((row) => columns.map(({ value }) => value(row))),
  };
}

export function toMarkdown(table: Table): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [
    line(table.columns.map(({ title }) => title)),
    line(table.columns.map(({ align }) => (align === "right" ? "---:" : "---"))),
    ...table.rows.map(line),
  ].join("\n");
}
