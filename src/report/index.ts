export { type ComparisonRow, comparisonTable } from "./comparison.js";
export * from "./format.js";
export {
  describeShape,
  type Inspection,
  inspectCheckpoint,
  type LinearInspection,
  weightFileBytes,
} from "./inspection.js";
export { type Table, tableOf, toMarkdown } from "./table.js";
