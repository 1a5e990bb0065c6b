#!/usr/bin/env node
import { runProcess } from "./process.js";
import { runProgram } from "./program.js";

await runProcess((signal) => runProgram(process.argv.slice(2), process, signal));
