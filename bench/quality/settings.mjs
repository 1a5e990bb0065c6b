// The settings of docs/RESULTS.md. `args` are options of `bitwright quantize`.
const vptq = (...rest) => ["--method", "vptq", ...rest];
const paper = ["--propagate", "full", "--asymmetric", "0"];

export const settings = [
  { name: "RTN W2 g64", args: ["--method", "rtn", "--bits", "2", "--group", "64"] },
  { name: "RTN W3 g128", args: ["--method", "rtn", "--bits", "3", "--group", "128"] },
  { name: "RTN W4 channel", args: ["--method", "rtn", "--bits", "4", "--group", "channel"] },
  { name: "GPTQ W2 g64", args: ["--method", "gptq", "--bits", "2", "--group", "64"] },
  { name: "GPTQ W3 g128", args: ["--method", "gptq", "--bits", "3", "--group", "128"] },
  { name: "GPTQ W3 g128 act-order", args: ["--method", "gptq", "--bits", "3", "--group", "128", "--act-order"] },
  { name: "GPTQ W4 g128", args: ["--method", "gptq", "--bits", "4", "--group", "128"] },
  { name: "GPTQ W4 g128 act-order", args: ["--method", "gptq", "--bits", "4", "--group", "128", "--act-order"] },
  { name: "VPTQ v4 k256, as published", args: vptq(...paper, "--refine", "0") },
  { name: "VPTQ v4 k256, full precision, seed 0", args: vptq(...paper, "--seed", "0") },
  { name: "VPTQ v4 k256, full precision, seed 1", args: vptq(...paper, "--seed", "1") },
  { name: "VPTQ v4 k256, full precision, seed 2", args: vptq(...paper, "--seed", "2") },
  { name: "VPTQ v4 k256, default", args: vptq() },
  { name: "VPTQ v4 k256, column norm", args: vptq("--norm", "column") },
  {
    name: "VPTQ v4 k256 + 2 % outliers v2 k256",
    args: vptq("--outliers", "2", "--outlier-vector-length", "2", "--outlier-codebook", "256"),
  },
  { name: "VPTQ v8 k256 + residual 256", args: vptq("--vector-length", "8", "--residual", "256") },
  { name: "VPTQ v4 k256 + residual 256", args: vptq("--residual", "256") },
];
