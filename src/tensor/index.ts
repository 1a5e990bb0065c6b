export * from "./dtype.js";
export * from "./float16.js";
export * from "./rounding.js";
export * from "./scope.js";
export * from "./tensor.js";
