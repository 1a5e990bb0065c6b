import { createReferenceEngine } from "../../src/engine/reference/index.js";
import { conformance } from "./suite.js";

conformance("reference", createReferenceEngine);
