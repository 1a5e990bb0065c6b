export {
  ADAMW,
  AdamW,
  type AdamwSettings,
  type OptimizerState,
  type Parameter,
  SCHEDULES,
  type Schedule,
  scheduleFactor,
  warmUpFactor,
} from "./adamw.js";
export { checkpoint } from "./checkpoint.js";
export { Tape } from "./tape.js";
