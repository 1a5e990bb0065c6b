export { type Evaluation, type EvaluationEvent, type EvaluationOptions, evaluate } from "./evaluate.js";
