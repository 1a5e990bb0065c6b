import { checkAdamwStep } from "../check.js";
import type { Engine } from "../engine.js";
import type { EngineMemory } from "../memory.js";

export const trainingOperations = (memory: EngineMemory): Pick<Engine, "adamwStep"> => ({
  adamwStep(parameter, gradient, first, second, options) {
    checkAdamwStep(parameter, gradient, first, second, options);
    const { rate, beta1, beta2, epsilon, decay, step } = options;
    const [p, g, m, v] = [parameter, gradient, first, second].map((tensor) => memory.host(tensor));
    const correct1 = 1 - beta1 ** step;
    const correct2 = 1 - beta2 ** step;
    for (let i = 0; i < p.length; i++) {
      m[i] = beta1 * m[i] + (1 - beta1) * g[i];
      v[i] = beta2 * v[i] + (1 - beta2) * g[i] * g[i];
      p[i] = p[i] * (1 - rate * decay) - (rate * (m[i] / correct1)) / (Math.sqrt(v[i] / correct2) + epsilon);
    }
  },
});
