export { type ComparisonRow, comparisonTable } from "./comparison.js";
export * from "./format.js";
export { type Table, tableOf, toMarkdown } from "./table.js";
