export {
  ADAMW,
  AdamW,
  type AdamwSettings,
  type OptimizerState,
  type Parameter,
  type Schedule,
  scheduleFactor,
} from "./adamw.js";
export { checkpoint } from "./checkpoint.js";
export { Tape } from "./tape.js";
