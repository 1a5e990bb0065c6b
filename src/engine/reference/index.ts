export { createReferenceEngine } from "./engine.js";
