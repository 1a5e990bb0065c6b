export { type Evaluation, type EvaluationEvent, type EvaluationOptions, evaluate, evaluateAll } from "./evaluate.js";
